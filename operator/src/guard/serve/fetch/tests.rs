use std::net::Ipv4Addr;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::*;
use crate::guard::exchange::HOLD;
use crate::guard::mutual_tls::tests::files;
use crate::guard::serve::{Dial, Observing, Settings};

/// What is left of a lease. Whoever waits for a silent control gives up after 2 s.
const LEFT: Duration = Duration::from_millis(100);
/// What takes longer is not going to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guard that serves by one shared limit.
async fn guard() -> Arc<Guard> {
    let settings = Settings {
        address: Ipv4Addr::LOCALHOST.into(),
        seed: [7; 16],
        dial: Dial::default(),
        connections_max: 1,
        body_bytes_max: 1,
        body_pause_max: PATIENCE,
        upgrade_idle_max: PATIENCE,
        observing: Observing::default(),
        trusted_hops: 0,
    };
    let guard = Guard::new(&settings, &prometheus::Registry::new()).unwrap();
    let quota = json!({"rate": {"requests": 100, "perSeconds": 1}, "burst": 100});
    let limit = json!({"name": "all", "scope": "Cluster", "quota": quota});
    let policy = json!({"name": "ns/policy", "rateLimits": [limit]});
    let served = json!({"revision": "r1", "policies": {"ns/policy": policy}});
    let served: Configuration = serde_json::from_value(served).unwrap();
    guard.apply(&served).await.unwrap();
    Arc::new(guard)
}

fn part(guard: &Guard) -> Share {
    guard.demand()["ns/policy"]["all"].share
}

fn even() -> Share {
    Share::one_of(2)
}

/// Gives the whole limit, on a lease of which so much is left; says when it was asked for.
fn give(lease: &Lease, left: Duration) -> Instant {
    let ago = HOLD.saturating_sub(left);
    let asked = Instant::now().checked_sub(ago).unwrap();
    let rules = BTreeMap::from([("all".to_owned(), Share::WHOLE)]);
    let given = ByRule::from([("ns/policy".to_owned(), rules)]);
    lease.renew(asked, given, even());
    asked
}

async fn until_let_go(guard: &Guard) {
    let waiting = async {
        while part(guard) != even() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

/// Lets the lease end while this step of a guard is under way, whose control takes connections and says nothing.
async fn lets_go_during(name: &str, step: impl AsyncFnOnce(&mut Follower)) {
    let folder = format!("guard-lease-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let following = Following {
        control: format!("https://{}", control.local_addr().unwrap())
            .parse()
            .unwrap(),
        files: files(&folder),
        name: name.to_owned(),
        folder: folder.clone(),
        replicas: 2,
    };
    let guard = guard().await;
    let stopping = CancellationToken::new();
    let mut follower = Follower::new(Arc::clone(&guard), following, stopping).unwrap();
    let asked = give(&follower.lease, LEFT);
    assert_eq!(part(&guard), Share::WHOLE);
    tokio::select! {
        () = step(&mut follower) => panic!("the guard lets go before the step ends"),
        () = until_let_go(&guard) => {}
    }
    assert!(asked.elapsed() >= HOLD);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_guard_that_waits_for_a_silent_control_lets_go_before_its_lease_ends() {
    lets_go_during("exchange", async |follower: &mut Follower| {
        let answered = follower.exchange().await;
        assert!(answered.is_err(), "{answered:?}");
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_fetches_a_configuration_lets_go_before_its_lease_ends() {
    let answer = Answer {
        newest: Some("r2".to_owned()),
        ..Answer::default()
    };
    lets_go_during("fetch", async |follower: &mut Follower| {
        follower.follow(&answer).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guard_whose_thread_is_busy_with_a_large_configuration_lets_go_before_its_lease_ends() {
    let guard = guard().await;
    let lease = Lease::new(Arc::clone(&guard));
    let asked = give(&lease, LEFT);
    // Without a pause in which this thread could do anything else.
    while part(&guard) != even() {
        assert!(asked.elapsed() < HOLD + PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(asked.elapsed() >= HOLD);
}

#[tokio::test]
async fn parts_that_are_confirmed_stay_and_those_that_come_back_are_let_go_again() {
    let guard = guard().await;
    let lease = Lease::new(Arc::clone(&guard));
    for _ in 0..2 {
        give(&lease, LEFT);
        assert_eq!(part(&guard), Share::WHOLE);
        until_let_go(&guard).await;
    }
    give(&lease, LEFT);
    sleep(LEFT / 4).await;
    give(&lease, HOLD);
    sleep(LEFT * 2).await;
    assert_eq!(part(&guard), Share::WHOLE);
}
