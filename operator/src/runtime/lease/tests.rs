use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::runtime::fake::Fake;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/jiuzhou-system/leases/hub";
const FENCE: &str = "/api/v1/namespaces/jiuzhou-system/configmaps/jiuzhou-fence";
const DURATION: Duration = Duration::from_secs(15);

/// A tenth of the real times: quick, and still forgiving where many tests share two cores.
const QUICK: Timing = Timing {
    duration: Duration::from_millis(1500),
    renew_every: Duration::from_millis(400),
    renew_deadline: Duration::from_secs(1),
    retry_every: Duration::from_millis(50),
};

fn held_by(holder: &str, version: u32) -> Held {
    Held {
        holder: holder.into(),
        renewed: None,
        resource_version: version.to_string(),
        duration: None,
    }
}

fn decide_as_a(observed: &Observed, now: Instant) -> Decision {
    decide(observed, "a", DURATION, now)
}

#[test]
fn a_lease_that_is_absent_or_given_up_is_taken_at_once() {
    let now = Instant::now();
    for held in [None, Some(held_by("", 1))] {
        assert_eq!(
            decide_as_a(&Observed::new(held, now), now),
            Decision::Acquire
        );
    }
}

#[test]
fn ones_own_lease_is_renewed() {
    let now = Instant::now();
    let observed = Observed::new(Some(held_by("a", 1)), now);
    assert_eq!(decide_as_a(&observed, now + DURATION * 9), Decision::Renew);
}

#[test]
fn a_holder_is_silent_only_after_a_whole_duration_without_change() {
    let start = Instant::now();
    let mut observed = Observed::new(Some(held_by("b", 1)), start);
    let later = start + Duration::from_secs(10);
    observed.see(Some(held_by("b", 1)), later);
    assert_eq!(
        decide_as_a(&observed, later),
        Decision::StandBy {
            until: start + DURATION
        }
    );
    observed.see(Some(held_by("b", 2)), later);
    assert_eq!(
        decide_as_a(&observed, later),
        Decision::StandBy {
            until: later + DURATION
        }
    );
    assert_eq!(decide_as_a(&observed, later + DURATION), Decision::Acquire);
}

#[test]
fn the_time_written_in_a_lease_is_never_compared_with_ours() {
    let now = Instant::now();
    for year in ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let mut held = held_by("b", 1);
        held.renewed = Some(year.parse().unwrap());
        let observed = Observed::new(Some(held), now);
        assert_eq!(
            decide_as_a(&observed, now),
            Decision::StandBy {
                until: now + DURATION
            }
        );
    }
}

#[test]
fn a_longer_lease_of_another_version_is_respected_within_reason() {
    let now = Instant::now();
    for (theirs, expected) in [(1, 15), (30, 30), (86_400, 60)] {
        let mut held = held_by("b", 1);
        held.duration = Some(Duration::from_secs(theirs));
        let until = now + Duration::from_secs(expected);
        let observed = Observed::new(Some(held), now);
        assert_eq!(decide_as_a(&observed, now), Decision::StandBy { until });
    }
}

#[test]
fn the_defaults_keep_leaders_apart() {
    let timing = Timing::default();
    assert!(timing.renew_deadline + Duration::from_secs(5) <= timing.duration);
    assert!(timing.renew_every * 2 + timing.retry_every < timing.renew_deadline);
}

fn candidate(fake: &Fake, me: &str) -> Election {
    Elector::new(fake.client(), "jiuzhou-system", "hub", me, QUICK).start()
}

async fn leads(election: &mut Election) -> Leadership {
    let wait = async {
        loop {
            if let Some(leadership) = election.leadership() {
                return leadership;
            }
            election.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("nobody leads")
}

fn fence(fake: &Fake) -> serde_json::Value {
    fake.get(FENCE).unwrap()["data"]["leaderEpoch"].clone()
}

#[tokio::test]
async fn the_first_leader_has_epoch_one_and_keeps_renewing() {
    let fake = Fake::default();
    let mut election = candidate(&fake, "a");
    let leadership = leads(&mut election).await;
    assert_eq!((leadership.epoch(), fence(&fake)), (1, json!("1")));
    let until = leadership.valid_until();
    tokio::time::sleep(QUICK.duration).await;
    assert!(leadership.is_valid() && leadership.valid_until() > until);
    election.release().await;
    assert!(leadership.lost().is_cancelled());
    assert_eq!(fake.get(LEASE).unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_released_lease_is_taken_before_it_would_run_out_and_the_fence_rises_with_the_first_write()
 {
    let fake = Fake::default();
    let mut first = candidate(&fake, "a");
    leads(&mut first).await;
    let mut second = candidate(&fake, "b");
    tokio::time::sleep(QUICK.retry_every * 3).await;
    assert!(second.leadership().is_none());
    first.release().await;
    let released = Instant::now();
    let leadership = leads(&mut second).await;
    assert_eq!(leadership.epoch(), 2);
    assert!(released.elapsed() < QUICK.duration);
    assert_eq!(fence(&fake), "1", "nothing was to be written yet");
    leadership.raise_fence().await.unwrap();
    assert_eq!(fence(&fake), "2");
}

#[tokio::test]
async fn a_leader_whose_number_is_taken_gets_another_before_it_writes() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "a");
    leads(&mut first).await;
    first.release().await;
    let mut second = candidate(&fake, "b");
    let leadership = leads(&mut second).await;
    Fence::new(fake.client(), "jiuzhou-system")
        .raise()
        .await
        .unwrap();
    let error = leadership.raise_fence().await.unwrap_err();
    assert!(
        matches!(error, LeaseError::Behind { at: 2, ours: 2 }),
        "{error}"
    );
    assert!(!leadership.is_valid());
    assert_eq!(leads(&mut second).await.epoch(), 3);
}

#[tokio::test]
async fn a_term_that_ended_before_its_first_write_is_another_one_although_its_number_comes_again() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "a");
    leads(&mut first).await;
    first.release().await;
    let mut second = candidate(&fake, "b");
    let before = leads(&mut second).await;
    fake.set_down(true);
    before.lost().cancelled().await;
    fake.set_down(false);
    let after = leads(&mut second).await;
    assert_eq!((before.epoch(), after.epoch()), (2, 2));
    assert!(!after.is_same_term(&before) && after.is_same_term(&after.clone()));
}

#[tokio::test]
async fn a_fence_is_raised_once_for_a_term_that_tries_twice() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "a");
    leads(&mut first).await;
    first.release().await;
    let mut second = candidate(&fake, "b");
    let term = leads(&mut second).await;
    term.raise_fence().await.unwrap();
    term.clone().raise_fence().await.unwrap();
    assert!(term.is_valid());
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_its_lease_could_be_taken() {
    let fake = Fake::default();
    let mut election = candidate(&fake, "a");
    let leadership = leads(&mut election).await;
    let until = leadership.valid_until();
    fake.set_down(true);
    let never = std::future::pending::<()>();
    assert_eq!(leadership.while_leading(never).await, None);
    let last = until.max(leadership.valid_until());
    // A challenger may take over this long after the last renewal was sent, at the earliest.
    assert!(Instant::now() + QUICK.renew_deadline < last + QUICK.duration);
    assert!(election.leadership().is_none() && !leadership.is_valid());
    fake.set_down(false);
    assert_eq!(leads(&mut election).await.epoch(), 2);
}

#[tokio::test]
async fn a_leader_whose_lease_was_taken_stops_and_waits() {
    let fake = Fake::default();
    let mut election = candidate(&fake, "a");
    let leadership = leads(&mut election).await;
    let mut lease = fake.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = json!("b");
    fake.put(LEASE, lease);
    tokio::time::timeout(QUICK.duration, leadership.lost().cancelled())
        .await
        .unwrap();
    // The thief never renews, so its lease runs out in the end.
    assert_eq!(leads(&mut election).await.epoch(), 2);
}

#[tokio::test]
async fn somebody_s_annotation_on_the_lease_does_not_end_a_term() {
    let fake = Fake::default();
    let mut election = candidate(&fake, "a");
    let leadership = leads(&mut election).await;
    let mut lease = fake.get(LEASE).unwrap();
    lease["metadata"]["annotations"] = json!({"note": "x"});
    fake.put(LEASE, lease);
    tokio::time::sleep(QUICK.duration).await;
    assert!(leadership.is_valid());
}

#[tokio::test]
async fn of_two_candidates_one_leads() {
    let fake = Fake::default();
    let (first, second) = (candidate(&fake, "a"), candidate(&fake, "b"));
    let mut seen = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let leading = [&first, &second]
            .iter()
            .filter(|e| e.leadership().is_some())
            .count();
        assert!(leading <= 1);
        seen += leading;
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn the_fence_only_rises() {
    let fake = Fake::default();
    let here = Fence::new(fake.client(), "jiuzhou-system");
    assert_eq!(here.raise().await.unwrap(), 1);
    assert_eq!(here.raise().await.unwrap(), 2);
    here.raise_to(7).await.unwrap();
    here.raise_to(7).await.unwrap();
    let error = here.raise_to(6).await.unwrap_err();
    assert!(matches!(error, LeaseError::Behind { at: 7, ours: 6 }));
    assert_eq!(here.raise().await.unwrap(), 8);
}

#[tokio::test]
async fn the_fence_keeps_what_else_is_in_it_and_refuses_to_guess() {
    let fake = Fake::default();
    let here = Fence::new(fake.client(), "jiuzhou-system");
    let metadata = json!({"name": "jiuzhou-fence"});
    fake.put(
        FENCE,
        json!({"metadata": metadata, "data": {"hubEpoch": "3"}}),
    );
    assert_eq!(here.raise().await.unwrap(), 1);
    assert_eq!(fake.get(FENCE).unwrap()["data"]["hubEpoch"], "3");
    for bad in [
        "",
        "x",
        "-1",
        "1.5",
        "9223372036854775807",
        "99999999999999999999",
    ] {
        fake.put(
            FENCE,
            json!({"metadata": metadata, "data": {"leaderEpoch": bad}}),
        );
        let error = here.raise().await.unwrap_err();
        assert!(
            matches!(error, LeaseError::Unreadable { .. }),
            "{bad}: {error}"
        );
        assert_eq!(fence(&fake), bad);
    }
}

#[tokio::test]
async fn two_that_raise_the_fence_at_once_get_different_epochs() {
    let fake = Fake::default();
    let here = Fence::new(fake.client(), "jiuzhou-system");
    let (first, second) = futures::join!(here.raise(), here.raise());
    let mut epochs = [first.unwrap(), second.unwrap()];
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2]);
}

#[tokio::test]
async fn a_heartbeat_beats_only_while_its_owner_is_well() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let fake = Fake::default();
    let period = Duration::from_millis(50);
    let beat = Heartbeat::new(fake.client(), "jiuzhou-system", "hub", "agent", period);
    let well = std::sync::Arc::new(AtomicBool::new(true));
    let asked = well.clone();
    let stop = CancellationToken::new();
    let task = tokio::spawn(beat.run(move || asked.load(Ordering::Relaxed), stop.clone()));
    let renewed = || {
        fake.get(LEASE)
            .map(|lease| lease["spec"]["renewTime"].clone())
    };
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        tokio::time::sleep(period).await;
        seen.extend(renewed().map(|time| time.to_string()));
    }
    well.store(false, Ordering::Relaxed);
    tokio::time::sleep(period * 4).await;
    let last = renewed();
    tokio::time::sleep(period * 4).await;
    assert_eq!(renewed(), last);
    stop.cancel();
    task.await.unwrap();
}
