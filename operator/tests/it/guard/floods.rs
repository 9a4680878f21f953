//! Clients that make much of little: floods of frames, of keys, and of names nobody has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Served, endpoint, get, mirror, say, serve, simple, status, text, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http://a/`, all of it from the table of HPACK but the host.
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// CANCEL of RFC 9113.
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
/// ENHANCE_YOUR_CALM of RFC 9113.
const CALM: u32 = 11;
/// What a client that floods says before it looks whether anybody listens.
const MANY: u32 = 20_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

/// Numbers of the streams that a client opens.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// Speaks HTTP/2 until the guard closes, and returns the reasons that it gave in GOAWAY. Nothing is read
/// before all is written, or cannot be.
async fn flood(at: SocketAddr, frames: Vec<u8>) -> Vec<u32> {
    let speaking = async {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let mut all = PREFACE.to_vec();
        all.extend(frame(SETTINGS, 0, 0, &[]));
        all.extend(frames);
        // A guard that stops listening leaves the rest unsaid.
        let saying = stream.write_all(&all);
        let _ = tokio::time::timeout(Duration::from_secs(5), saying).await;
        let _ = stream.shutdown().await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    let heard = within("the guard closes", speaking).await;
    let mut reasons = Vec::new();
    let mut rest = heard.as_slice();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let Some((payload, next)) = after.split_at_checked(usize::try_from(length).unwrap()) else {
            break;
        };
        if head[3] == GOAWAY {
            reasons.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = next;
    }
    reasons
}

/// A guard, and how often its endpoint was asked.
async fn counted() -> (Served, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let at = endpoint(move |_: Request<Incoming>| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Response::new(text("ok")) }
    })
    .await;
    (serve(&simple(&[at])).await, asked)
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection_and_ask_nobody() {
    let (served, asked) = counted().await;
    let mut frames = Vec::new();
    for stream in streams().take(usize::try_from(MANY).unwrap()) {
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD));
        frames.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let reasons = flood(served.at, frames).await;
    assert_eq!(reasons.last(), Some(&CALM));
    // What was open at one time may have been on its way.
    let asked = asked.load(Ordering::Relaxed);
    assert!(
        asked <= 256,
        "{asked} of {MANY} requests reached the endpoint"
    );
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn floods_of_frames_that_cost_the_client_nothing_leave_the_others_served() {
    let served = serve(&simple(&[mirror().await])).await;
    let settings = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0x10, 0]);
    let ping = frame(PING, 0, 0, &[0; 8]);
    let opened = frame(HEADERS, END_HEADERS, 1, HEAD);
    let empty = frame(DATA, 0, 1, &[]);
    let unended = frame(HEADERS, END_STREAM, 1, HEAD);
    let more = frame(CONTINUATION, 0, 1, &[]);
    for (first, again) in [
        (vec![], settings),
        (vec![], ping),
        (opened, empty),
        (unended, more),
    ] {
        let mut frames = first;
        for _ in 0..MANY {
            frames.extend(&again);
        }
        let kind = again[3];
        let flooding = tokio::spawn(flood(served.at, frames));
        let answer = within("another client is served", get(served.at, "/")).await;
        assert_eq!(status(&answer), 200, "beside frames of kind {kind}");
        flooding.await.unwrap();
        assert_eq!(status(&get(served.at, "/").await), 200);
    }
}

#[tokio::test]
async fn a_head_that_unpacks_to_more_than_is_allowed_reaches_no_endpoint() {
    let (served, asked) = counted().await;
    // A header of 4,000 bytes goes into the table of HPACK once, and then costs a byte each time.
    let mut head = HEAD.to_vec();
    head.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    head.extend(vec![b'a'; 4_000]);
    head.extend(vec![0xbe; 4_000]);
    let frames = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
    flood(served.at, frames).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(status(&get(served.at, "/").await), 200);
}

/// A guard whose only limit is one request an hour for each citizen, with room for `keys` of them.
async fn by_citizen(keys: u32) -> Served {
    let mut configuration = simple(&[mirror().await]);
    let policy = json!({"name": "ns/app", "rateLimits": [{
        "name": "each", "scope": "Instance", "key": [{"header": "x-citizen"}], "onMissing": "Refuse",
        "quota": {"rate": {"requests": 1, "perSeconds": 3_600}, "burst": 1}, "keys": keys,
    }]});
    let policy = serde_json::from_value(policy).unwrap();
    configuration.policies.insert("ns/app".into(), policy);
    configuration.rules[0].policy = Some("ns/app".into());
    serve(&configuration).await
}

fn asks(citizen: &[u8], last: bool) -> Vec<u8> {
    let connection = if last { "close" } else { "keep-alive" };
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nX-Citizen: ");
    let mut all = head.into_bytes();
    all.extend(citizen);
    all.extend(b"\r\n\r\n");
    all
}

#[tokio::test]
async fn made_up_keys_do_not_free_a_citizen_from_its_limit() {
    let served = by_citizen(1_000).await;
    assert_eq!(status(&say(served.at, asks(b"greedy", true)).await), 200);
    assert_eq!(status(&say(served.at, asks(b"greedy", true)).await), 429);
    let mut made_up = Vec::new();
    for number in 0..10_000 {
        made_up.extend(asks(format!("nobody-{number}").as_bytes(), number == 9_999));
    }
    let answers = say(served.at, made_up).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 10_000);
    assert_eq!(status(&say(served.at, asks(b"greedy", true)).await), 429);
}

#[tokio::test]
async fn a_key_is_bytes_whether_they_are_text_or_not() {
    let served = by_citizen(1_000).await;
    for citizen in [
        &b"\xff\xfe"[..],
        b"\xff\xfd",
        b"\xc3\x28",
        "citizen-市".as_bytes(),
    ] {
        assert_eq!(status(&say(served.at, asks(citizen, true)).await), 200);
        assert_eq!(status(&say(served.at, asks(citizen, true)).await), 429);
    }
}
