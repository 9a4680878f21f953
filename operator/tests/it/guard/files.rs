//! A guard that has no open files left.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use operator::guard::config::Configuration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::outlier::ejecting;
use super::support::{endpoint, status, text, within};

/// Enough to start and to serve some, and far fewer than clients take here.
const FILES: &str = "64";
const START: &str = r#"ulimit -n "$1"; exec "$2" guard serve --configuration "$3" --address 127.0.0.1 \
    --metrics-address 127.0.0.1:0 --access-log off"#;

/// A guard of its own process, which ends with the test.
struct Process {
    child: Child,
    file: PathBuf,
}

impl Process {
    fn start(configuration: &Configuration) -> Self {
        let file = std::env::temp_dir().join(format!("guard-files-{}.json", std::process::id()));
        std::fs::write(&file, serde_json::to_vec(configuration).unwrap()).unwrap();
        let child = Command::new("sh")
            .args(["-c", START, "sh", FILES, env!("CARGO_BIN_EXE_jiuzhou")])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self {
            child: child.unwrap(),
            file,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// An endpoint that keeps no connection, so that each request needs another one, and how often it was asked.
async fn closing() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let at = endpoint(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let answer = Response::builder().header("connection", "close");
        async move { answer.body(text("ok")).unwrap() }
    })
    .await;
    (at, asked)
}

async fn connect(at: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(at).await {
            Ok(stream) => return stream,
            // The process has not begun to listen.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// One answer on a connection that stays.
async fn ask(client: &mut TcpStream) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within("a head", client.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(answer).unwrap();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect(&head).parse().unwrap()];
    within("a body", client.read_exact(&mut body))
        .await
        .unwrap();
    head + &String::from_utf8(body).unwrap()
}

async fn ask_until(client: &mut TcpStream, wanted: u16) -> String {
    loop {
        let answer = ask(client).await;
        if status(&answer) == wanted {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_guard_without_open_files_says_so_and_ejects_no_endpoint() {
    let [(one, asked_one), (two, asked_two)] = [closing().await, closing().await];
    // An endpoint that fails once gets no more requests in this test.
    let configuration = ejecting(&[one, two], 1, Duration::from_hours(1));
    let _process = Process::start(&configuration);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, configuration.ports[0].port));
    let mut client = within("the guard listens", connect(at)).await;
    assert_eq!(status(&ask(&mut client).await), 200);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(at).await.unwrap());
    }
    let refused = within("it has no files", ask_until(&mut client, 503)).await;
    assert!(refused.contains("Exhausted"), "{refused}");
    drop(idle);
    let before = [&asked_one, &asked_two].map(|asked| asked.load(Ordering::Relaxed));
    let both = async {
        while asked_one.load(Ordering::Relaxed) <= before[0]
            || asked_two.load(Ordering::Relaxed) <= before[1]
        {
            ask(&mut client).await;
        }
    };
    within("both are asked again", both).await;
}
