//! The load generator against small servers in this process: what it measures is what happened.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use e2e::load::{
    Limits, Plan, Retry,
    mix::{Keys, Kind, Mix},
    report::{Failure, Report, Void},
    run::{Run, run, run_here},
    schedule::{Arrivals, Schedule},
    target::{Protocol, Target},
};
use http::{Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until},
};

use servers::{apart, listen, serve_http2, server, status, tls};

mod servers;

/// A bound that a busy machine keeps too: these tests are about the server, but for one.
const PATIENT: Duration = Duration::from_millis(500);

/// Runs until one was left alone by what else the machine does.
const RUNS_MAX: u32 = 20;

fn plan(address: SocketAddr, rate: f64, lasts: Duration) -> Plan {
    let schedule = Schedule::constant(rate, Arrivals::Uniform, lasts).unwrap();
    let target = Target::at(address, Protocol::Http1).unwrap();
    let mix = Mix::one(Kind::get("app.example")).unwrap();
    Plan {
        limits: Limits {
            lag: PATIENT,
            ..Limits::default()
        },
        ..Plan::new(schedule, mix, target)
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What always holds.
fn check(report: &Report) {
    let total = &report.total;
    assert_eq!(
        total.offered,
        total.served + total.given_up + total.dropped + total.unfinished,
        "every request ended in one way\n{}",
        report.table()
    );
    if !report.stopped {
        assert_eq!(
            total.attempts,
            total.succeeded + total.refused + total.failed
        );
        let statuses: u64 = total.statuses.values().sum();
        let failures: u64 = total.failures.values().sum();
        assert_eq!(total.attempts, statuses + failures);
    }
}

#[tokio::test]
async fn every_request_is_sent_with_its_host_key_and_label() {
    let address = server(async |request: Request<Incoming>| {
        let host = request.headers()[header::HOST] == "app.example";
        let user = request.headers().get("x-user").is_some();
        let post = request.method() == "POST" && request.uri().path().starts_with("/venue/");
        status(if host && (user || post) { 200 } else { 400 })
    })
    .await;
    let read = Kind {
        label: "read".into(),
        weight: 3.0,
        headers: [("x-user".to_owned(), "u{key}".to_owned())].into(),
        ..Kind::get("app.example")
    };
    let write = Kind {
        label: "write".into(),
        method: "POST".into(),
        path: "/venue/{key}".into(),
        body: "key {key}".into(),
        ..Kind::get("app.example")
    };
    let mut plan = plan(address, 400.0, millis(500));
    plan.mix = Mix::of(&[read, write], Keys::Uniform { of: 10 }).unwrap();
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.total.statuses, [(200, 200)].into());
    assert!(report.labels["read"].served > report.labels["write"].served);
    assert!(report.labels["write"].served > 20);
    assert!(report.void().is_empty(), "{}", report.table());
}

/// A run against a server that answers nothing for its second second.
async fn stalled() -> Report {
    let began = Instant::now();
    let stall = (began + millis(1_000), began + millis(2_000));
    let address = server(move |_| async move {
        if (stall.0..stall.1).contains(&Instant::now()) {
            sleep_until(stall.1).await;
        }
        status(200)
    })
    .await;
    run(plan(address, 200.0, millis(3_000))).await.unwrap()
}

#[tokio::test]
async fn a_stall_is_seen_by_every_request_that_was_meant_for_it() {
    for _ in 0..RUNS_MAX {
        let report = stalled().await;
        check(&report);
        // A hundred requests were meant for the first half of the stall. A closed loop would have sent
        // one for each of its connections.
        let latency = &report.total.success_latency;
        assert_eq!(latency.count(), 600);
        let median_of_slow = latency.quantile(1.0 - 100.0 / 600.0);
        assert!(median_of_slow > millis(400), "{}", report.table());
        assert!(latency.max() > millis(900), "{}", report.table());
        // None of them was held back by the stall.
        let offered: Vec<u64> = report.total.series.iter().map(|s| s.offered).collect();
        assert_eq!(offered[..3], [200, 200, 200]);
        // What a busy machine adds to all of them is measured too, so that only a run says more which it left alone.
        if report.lag.max() > millis(100) {
            continue;
        }
        assert!(median_of_slow < millis(750), "{}", report.table());
        assert!(latency.quantile(0.5) < millis(300), "{}", report.table());
        break;
    }
}

#[tokio::test]
async fn the_stall_is_seen_on_one_connection_too_where_sends_are_dropped_aloud() {
    let address = server(async |_| {
        sleep(millis(100)).await;
        status(200)
    })
    .await;
    let mut plan = plan(address, 100.0, millis(500));
    plan.limits.connections = 2;
    let report = run(plan).await.unwrap();
    check(&report);
    assert!(report.total.dropped > 30, "{}", report.table());
    assert_eq!(report.void(), [Void::Dropped(report.total.dropped)]);
    assert_eq!(report.total.offered, 50, "a dropped request was offered");
}

#[tokio::test]
async fn refused_requests_are_tried_again_and_counted_apart() {
    let seen = Arc::new(AtomicUsize::new(0));
    let address = server(move |_| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        async move { status(if number < 20 { 429 } else { 200 }) }
    })
    .await;
    let mut plan = plan(address, 100.0, millis(100));
    plan.retry = Some(Retry::every(millis(150), 5));
    let report = run(plan).await.unwrap();
    check(&report);
    let total = &report.total;
    assert_eq!((total.offered, total.attempts), (10, 30));
    assert_eq!((total.refused, total.served, total.given_up), (20, 10, 0));
    assert_eq!(total.served_at_once, 0);
    assert!(total.served_after.quantile(0.0) >= millis(299));
    // An attempt's own latency begins when that attempt was meant to be sent.
    assert!(
        total.success_latency.max() < millis(299) + report.lag.max(),
        "{}",
        report.table()
    );
    assert_eq!(total.refusal_latency.count(), 20);
}

#[tokio::test]
async fn people_give_up_after_so_many_attempts() {
    let address = server(async |_| status(500)).await;
    let mut plan = plan(address, 100.0, millis(50));
    plan.retry = Some(Retry::every(millis(20), 2));
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.total.given_up, 5);
    assert_eq!((report.total.attempts, report.total.failed), (15, 15));
}

#[tokio::test]
async fn the_server_is_obeyed_when_it_says_when_to_come_again() {
    let run = async |honours_retry_after| {
        let seen = Arc::new(AtomicUsize::new(0));
        let address = server(move |_| {
            let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let mut answer = status(if first { 503 } else { 200 });
                let headers = answer.headers_mut();
                headers.insert(header::RETRY_AFTER, "1".try_into().unwrap());
                answer
            }
        })
        .await;
        let mut plan = plan(address, 1.0, millis(100));
        plan.retry = Some(Retry {
            honours_retry_after,
            ..Retry::every(millis(10), 1)
        });
        let report = run(plan).await.unwrap();
        assert_eq!(report.total.served, 1);
        (report.total.served_after.max(), report.lag.max())
    };
    assert!(run(true).await.0 >= millis(1_000));
    let (after, late) = run(false).await;
    assert!(after < millis(900) + late, "{after:?}, late by {late:?}");
}

#[tokio::test]
async fn whoever_refuses_at_once_is_asked_no_more_than_the_others() {
    let counts = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let [quick, slow] = counts.clone();
    let shedding = server(move |_| {
        quick.fetch_add(1, Ordering::Relaxed);
        async { status(429) }
    });
    let working = server(move |_| {
        slow.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(millis(20)).await;
            status(200)
        }
    });
    let mut plan = plan(shedding.await, 200.0, millis(1_000));
    plan.target = plan.target.also_at(working.await).unwrap();
    plan.limits.warm = 64;
    let report = run(plan).await.unwrap();
    check(&report);
    let [of_quick, of_slow] = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(of_quick + of_slow, 200);
    assert!((80..=120).contains(&of_quick), "{of_quick} of 200");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout_with_all_its_length() {
    let address = server(async |_| {
        sleep(Duration::from_mins(1)).await;
        status(200)
    })
    .await;
    let mut plan = plan(address, 50.0, millis(100));
    plan.limits.timeout = millis(200);
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.total.failures, [(Failure::Timeout, 5)].into());
    assert!(report.total.failure_latency.quantile(0.0) >= millis(199));
    assert_eq!(report.total.series[0].latency.count(), 5);
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_reset_and_one_that_is_refused_is_not() {
    let breaks = listen(async |mut socket: TcpStream| {
        // The request is read, and nothing said.
        let _ = socket.read(&mut [0; 1_024]).await;
    })
    .await;
    let report = run(plan(breaks, 50.0, millis(100))).await.unwrap();
    check(&report);
    assert_eq!(report.total.failures, [(Failure::Reset, 5)].into());

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let report = run(plan(address, 50.0, millis(100))).await.unwrap();
    check(&report);
    assert_eq!(report.total.failures, [(Failure::Connect, 5)].into());
}

#[tokio::test]
async fn what_is_no_http_is_said_to_be_so() {
    let address = listen(async |mut socket: TcpStream| {
        let _ = socket.read(&mut [0; 1_024]).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail ready\r\n\r\n").await;
    })
    .await;
    let report = run(plan(address, 50.0, millis(100))).await.unwrap();
    check(&report);
    assert_eq!(report.total.failures, [(Failure::Protocol, 5)].into());
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_fails_no_request() {
    let connections = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&connections);
    let address = listen(move |socket| {
        opened.fetch_add(1, Ordering::Relaxed);
        async move {
            let service = service_fn(async |_| Ok::<_, Infallible>(status(200)));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                _ = serving.as_mut() => {}
                () = sleep(millis(50)) => {}
            }
        }
    })
    .await;
    let report = run(plan(address, 10.0, millis(500))).await.unwrap();
    check(&report);
    assert_eq!(report.total.served, 5, "{}", report.table());
    assert!(connections.load(Ordering::Relaxed) >= 5);
}

#[tokio::test]
async fn many_requests_share_a_connection_of_http2() {
    let connections = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&connections);
    let address = listen(move |socket| {
        opened.fetch_add(1, Ordering::Relaxed);
        serve_http2(socket)
    })
    .await;
    let mut plan = plan(address, 1_000.0, millis(300));
    plan.target = Target::at(address, Protocol::Http2).unwrap();
    plan.limits.connections = 1;
    plan.limits.streams = 300;
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.total.statuses, [(200, 300)].into());
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

async fn over_tls(address: SocketAddr, protocol: Protocol, ca: &[u8], name: &str) -> Report {
    let mut plan = plan(address, 100.0, millis(200));
    let target = Target::at(address, protocol).unwrap();
    plan.target = target.over_tls(ca, name).unwrap();
    let report = run(plan).await.unwrap();
    check(&report);
    report
}

#[tokio::test]
async fn tls_is_spoken_with_servers_that_prove_their_name() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (address, ca) = tls("load-tls", protocol).await;
        let report = over_tls(address, protocol, &ca, "localhost").await;
        assert_eq!(report.total.statuses, [(200, 20)].into(), "{protocol:?}");
        let report = over_tls(address, protocol, &ca, "another.example").await;
        let refused = [(Failure::Connect, 20)].into();
        assert_eq!(report.total.failures, refused, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_agree_on_http2_is_not_spoken_to_in_it() {
    let (address, ca) = tls("load-alpn", Protocol::Http1).await;
    let report = over_tls(address, Protocol::Http2, &ca, "localhost").await;
    assert_eq!(report.total.failures, [(Failure::Connect, 20)].into());
}

#[tokio::test]
async fn a_generator_that_is_held_up_says_that_its_run_is_void() {
    let address = thread::spawn(apart).join().unwrap();
    // In this runtime something else takes most of the time.
    let hog = tokio::spawn(async {
        loop {
            thread::sleep(millis(40));
            tokio::task::yield_now().await;
        }
    });
    let mut plan = plan(address, 200.0, millis(600));
    plan.limits.lag = Duration::from_millis(5);
    let report = run_here(plan.clone()).await.unwrap();
    hog.abort();
    check(&report);
    assert!(report.lagged, "{}", report.table());
    assert!(matches!(report.void()[0], Void::Lagged { .. }));
    // The answers were quick, but to requests that should have been sent before.
    assert!(
        report.total.success_latency.quantile(0.9) > millis(10),
        "{}",
        report.table()
    );
}

#[tokio::test]
async fn a_run_that_is_stopped_reports_what_it_did() {
    let address = server(async |_| {
        sleep(millis(500)).await;
        status(200)
    })
    .await;
    let mut begun = Run::start(plan(address, 100.0, Duration::from_mins(1))).unwrap();
    while begun.progress().offered < 80 {
        sleep(millis(10)).await;
    }
    begun.stop();
    let report = begun.finish().await.unwrap();
    check(&report);
    assert!(report.stopped && report.total.unfinished > 10);
    assert!(report.total.offered < 1_000);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_run() {
    let address = server(async |_| status(200)).await;
    let offered = async |seed| {
        let mut plan = plan(address, 100.0, millis(2_000));
        plan.schedule = Schedule::constant(100.0, Arrivals::Poisson, millis(2_000)).unwrap();
        plan.seed = seed;
        let report = run(plan).await.unwrap();
        let series = report.total.series.iter();
        // A last answer may come a second after the last request.
        let offered = series.map(|second| second.offered);
        offered.filter(|count| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(offered(7).await, offered(7).await);
    assert_ne!(offered(7).await, offered(8).await);
}
