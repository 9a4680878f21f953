//! Connections that change to another protocol.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::support::{echo, ping, serve, serve_with, settings, simple, websocket, within};

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways() {
    let served = serve(&simple(&[echo().await])).await;
    let mut stream = websocket(served.at).await;
    ping(&mut stream).await;
    // It counts among the connections that a guard holds as long as it is open.
    let mut open = Vec::new();
    for _ in 0..199 {
        open.push(TcpStream::connect(served.at).await.unwrap());
    }
    let mut one_more = TcpStream::connect(served.at).await.unwrap();
    let mut nothing = Vec::new();
    // Sooner than connections are closed that ask for nothing.
    let closed = one_more.read_to_end(&mut nothing);
    let closed = tokio::time::timeout(Duration::from_secs(15), closed).await;
    assert!(closed.is_ok() && nothing.is_empty(), "it is closed at once");
}

#[tokio::test]
async fn a_websocket_on_which_nobody_says_anything_is_closed() {
    let mut settings = settings();
    settings.upgrade_idle_max = Duration::from_secs(2);
    let served = serve_with(&settings, &simple(&[echo().await])).await;
    let mut stream = websocket(served.at).await;
    let started = std::time::Instant::now();
    while started.elapsed() < settings.upgrade_idle_max * 3 / 2 {
        ping(&mut stream).await;
        tokio::time::sleep(settings.upgrade_idle_max / 10).await;
    }
    let mut nothing = Vec::new();
    // How the connection ends is up to the system; that it does is what counts.
    let _ = within("it is closed", stream.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
}
