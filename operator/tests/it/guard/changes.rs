//! Changes of the configuration, and the end, while requests are under way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use operator::guard::config::PathMatch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use serde_json::{Value, json};

use super::protecting::{protect, protected};
use super::support::{
    echo, endpoint, get, mirror, ping, serve, simple, status, text, to, until, websocket, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_under_load_fail_no_request() {
    let endpoints = [mirror().await, mirror().await];
    let mut configuration = simple(&endpoints);
    let served = serve(&configuration).await;
    let (done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let loads: Vec<_> = (0..4)
        .map(|_| {
            let (at, done, failed) = (served.at, Arc::clone(&done), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    failed.fetch_add(
                        usize::from(status(&get(at, "/").await) != 200),
                        Ordering::Relaxed,
                    );
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    for number in 0..100 {
        configuration.revision = format!("r{number}");
        let service = configuration.services.get_mut("ns/app:80").unwrap();
        service.endpoints.rotate_left(1);
        service.endpoints.truncate(1 + number % 2);
        if number % 2 == 0 {
            let other = endpoints.map(|at| operator::guard::config::Endpoint {
                address: at.ip(),
                port: at.port(),
            });
            service.endpoints = other.to_vec();
        }
        served.guard.apply(&configuration).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for load in loads {
        sent += load.await.unwrap();
    }
    assert_eq!(served.guard.revision(), "r99");
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {sent}");
    assert!(sent > 50, "{sent}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_leaves_the_last_good_one() {
    let mut configuration = simple(&[mirror().await]);
    let served = serve(&configuration).await;
    configuration.rules.push(to("ns/missing:80"));
    configuration.revision = "bad".into();
    let error = served.guard.apply(&configuration).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(
        error.contains("configuration bad") && error.contains("ns/missing:80"),
        "{error}"
    );
    assert_eq!(served.guard.revision(), "test");
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn a_configuration_is_made_ready_aside_of_what_serves() {
    let mut configuration = simple(&[mirror().await]);
    let served = serve(&configuration).await;
    let entries = &mut configuration.ports[0].listeners[0].hosts[0].entries;
    entries[0].matches.path = PathMatch::Regex("/|(a{100}){100}".into());
    configuration.revision = "large".into();
    let mut applying = Box::pin(served.guard.apply(&configuration));
    // After its first turn the one thread here is free again, long before the expression is compiled.
    tokio::select! {
        biased;
        _ = &mut applying => panic!("it is not made ready at once"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(served.guard.revision(), "test");
    applying.await.unwrap();
    assert_eq!(served.guard.revision(), "large");
    assert_eq!(status(&get(served.at, "/").await), 200);
}

/// A burst of one, and then so many a second.
fn paced(requests: u32, seconds: u32) -> Value {
    let quota = json!({"rate": {"requests": requests, "perSeconds": seconds}, "burst": 1});
    json!({"name": "ns/policy",
        "rateLimits": [{"name": "all", "scope": "Instance", "quota": quota}]})
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_changes_no_limit_that_is_in_force() {
    let mut configuration = protected(mirror().await, &paced(1, 3600));
    let served = serve(&configuration).await;
    assert_eq!(status(&get(served.at, "/").await), 200);
    assert_eq!(status(&get(served.at, "/").await), 429);
    protect(&mut configuration, &paced(10_000, 1));
    configuration.rules.push(to("ns/missing:80"));
    configuration.revision = "bad".into();
    served.guard.apply(&configuration).await.unwrap_err();
    // By the rate that was refused one more would pass in each tenth of a millisecond.
    for _ in 0..20 {
        assert_eq!(status(&get(served.at, "/").await), 429);
    }
    configuration.rules.pop();
    configuration.revision = "good".into();
    served.guard.apply(&configuration).await.unwrap();
    let passes = async { while status(&get(served.at, "/").await) != 200 {} };
    within("the rate of the next configuration is in force", passes).await;
}

#[tokio::test]
async fn what_is_under_way_counts_for_a_bound_that_is_lowered_and_classes_that_change() {
    let (begun, mut under_way) = tokio::sync::mpsc::unbounded_channel();
    let ended = Arc::new(tokio::sync::Semaphore::new(0));
    let answered = Arc::clone(&ended);
    let at = endpoint(move |_| {
        let (begun, ended) = (begun.clone(), Arc::clone(&answered));
        async move {
            begun.send(()).unwrap();
            ended.acquire().await.unwrap().forget();
            Response::new(text(""))
        }
    })
    .await;
    let mut configuration = protected(at, &json!({"name": "ns/policy", "concurrency": {"max": 2}}));
    let served = serve(&configuration).await;
    let two = [0, 1].map(|_| tokio::spawn(async move { get(served.at, "/").await }));
    for _ in &two {
        within("both are asked", under_way.recv()).await.unwrap();
    }
    let lower = json!({"name": "ns/policy", "concurrency": {"max": 1},
        "classes": [{"tier": "Core", "guaranteedPercent": 50}]});
    protect(&mut configuration, &lower);
    configuration.revision = "lower".into();
    served.guard.apply(&configuration).await.unwrap();
    let third = get(served.at, "/").await;
    assert!(
        status(&third) == 503 && third.contains("WaitedTooLong"),
        "{third}"
    );
    let concurrency = || {
        served
            .guard
            .standing()
            .policies
            .remove(0)
            .concurrency
            .unwrap()
    };
    assert_eq!((concurrency().limit, concurrency().running), (1, 2));
    ended.add_permits(2);
    for one in two {
        assert_eq!(status(&one.await.unwrap()), 200);
    }
    until("their places are free", || concurrency().running == 0).await;
    assert!(under_way.try_recv().is_err(), "the third never got there");
}

#[tokio::test]
async fn a_port_that_is_no_longer_wanted_is_closed() {
    let mut configuration = simple(&[mirror().await]);
    let served = serve(&configuration).await;
    configuration.ports.clear();
    served.guard.apply(&configuration).await.unwrap();
    let closed = async {
        while TcpStream::connect(served.at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the port is closed", closed).await;
}

#[tokio::test]
async fn what_is_under_way_ends_before_the_guard_does() {
    let (begun, mut under_way) = tokio::sync::mpsc::unbounded_channel();
    let at = endpoint(move |_| {
        begun.send(()).unwrap();
        late()
    })
    .await;
    let served = serve(&simple(&[at])).await;
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within("the endpoint is asked", under_way.recv())
        .await
        .unwrap();
    let drained = served.guard.drain(Duration::from_secs(10));
    let mut answer = String::new();
    let ((), read) = within("both end", async {
        tokio::join!(drained, stream.read_to_string(&mut answer))
    })
    .await;
    read.unwrap();
    assert!(
        status(&answer) == 200 && answer.ends_with("whole"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(TcpStream::connect(served.at).await.is_err());
}

async fn late() -> Response<super::support::Body> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    Response::new(text("whole"))
}

#[tokio::test]
async fn a_port_of_two_addresses_is_two_ports_that_know_nothing_of_each_other() {
    let mut configuration = simple(&[mirror().await]);
    let served = serve(&configuration).await;
    let mut other = configuration.ports.remove(0);
    let port = other.port;
    // Every address of 127.0.0.0/8 is this machine's.
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
    other.address = Some(addresses[0]);
    configuration.ports.push(other.clone());
    other.address = Some(addresses[1]);
    other.listeners[0].hosts.clear();
    configuration.ports.push(other);
    configuration.revision = "apart".to_owned();
    served.guard.apply(&configuration).await.unwrap();
    let [with_route, without] = addresses.map(|address| SocketAddr::new(address, port));
    assert_eq!(status(&get(with_route, "/").await), 200);
    assert_eq!(status(&get(without, "/").await), 404);
    let gone = async { while TcpStream::connect(served.at).await.is_ok() {} };
    within("the port of the guard's own address is closed", gone).await;

    configuration.ports.remove(0);
    configuration.revision = "one".to_owned();
    served.guard.apply(&configuration).await.unwrap();
    let gone = async { while TcpStream::connect(with_route).await.is_ok() {} };
    within("the port of the first is closed", gone).await;
    assert_eq!(status(&get(without, "/").await), 404);
}

/// The head of the next answer on a connection.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8_lossy(&head).to_ascii_lowercase()
}

#[tokio::test]
async fn a_guard_that_will_end_says_with_each_answer_that_the_connection_does() {
    let empty = endpoint(|_| async { Response::new(text("")) }).await;
    for (version, wanted) in [
        ("1.1", "host: a"),
        ("1.0", "host: a\r\nconnection: keep-alive"),
    ] {
        let served = serve(&simple(&[empty])).await;
        let request = format!("GET / HTTP/{version}\r\n{wanted}\r\n\r\n");
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let kept = head(&mut stream).await;
        assert!(!kept.contains("close"), "{kept}");
        served.guard.keep_no_more();
        stream.write_all(request.as_bytes()).await.unwrap();
        let last = head(&mut stream).await;
        assert!(last.contains("\r\nconnection: close\r\n"), "{last}");
        let mut nothing = Vec::new();
        let ended = within("it is closed", stream.read_to_end(&mut nothing)).await;
        assert_eq!(ended.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_guard_that_will_end_still_changes_to_websockets() {
    let served = serve(&simple(&[echo().await])).await;
    served.guard.keep_no_more();
    let mut stream = websocket(served.at).await;
    ping(&mut stream).await;
}
