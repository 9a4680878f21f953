//! What passes, and how it looks on the other side.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use operator::guard::config::{
    Backend, Filter, HeaderChange, PathChange, Protocol, Redirect, Rewrite, Rule,
};
use tokio::net::TcpStream;

use super::support::{
    bytes, endpoint, free_port, get, mirror, routes, say, serve, simple, status, text, to, within,
};

#[tokio::test]
async fn an_endpoint_sees_the_request_and_who_really_sent_it() {
    let served = serve(&simple(&[mirror().await])).await;
    let answer = say(
        served.at,
        "POST /a%2Db//c?x=1 HTTP/1.1\r\nHost: App.example:8080\r\nX-Forwarded-For: 10.0.0.1\r\n\
         x_secret: 1\r\nConnection: close, x-hop\r\nx-hop: 1\r\nContent-Length: 5\r\n\r\nhello",
    )
    .await;
    assert_eq!(status(&answer), 200, "{answer}");
    for seen in [
        "POST /a-b/c?x=1\n",
        "host: App.example:8080\n",
        "x-forwarded-for: 127.0.0.1\n",
        "hello",
    ] {
        assert!(answer.contains(seen), "{seen}: {answer}");
    }
    for hidden in ["10.0.0.1", "x_secret", "x-hop"] {
        assert!(!answer.contains(hidden), "{hidden}: {answer}");
    }
}

#[tokio::test]
async fn what_nobody_can_answer_says_why_in_the_clients_format() {
    let nobody = Rule {
        backends: vec![Backend {
            weight: 1,
            service: None,
            filters: vec![],
        }],
        ..to("x")
    };
    let rules = vec![
        ("/app", to("ns/app:80")),
        ("/broken", nobody),
        ("/gone", to("ns/gone:80")),
    ];
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let served = serve(&routes(
        rules,
        &[("ns/app:80", &[]), ("ns/gone:80", &[closed])],
    ))
    .await;
    let answer = get(served.at, "/app").await;
    assert_eq!(status(&answer), 503);
    assert!(
        answer.contains("retry-after: ") && answer.contains("application/problem+json"),
        "{answer}"
    );
    assert!(answer.contains(r#""title":"NoEndpoint""#), "{answer}");
    let page = "GET /app HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    let page = say(served.at, page).await;
    assert!(
        page.contains("服务暂无可用实例") && page.contains("text/html"),
        "{page}"
    );
    let english = "GET /app HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nAccept-Language: en\r\n\
        Connection: close\r\n\r\n";
    let english = say(served.at, english).await;
    assert!(
        english.contains("<html lang=en>") && !english.contains("服务"),
        "{english}"
    );
    assert_eq!(status(&get(served.at, "/broken").await), 500);
    assert_eq!(status(&get(served.at, "/none").await), 404);
    assert_eq!(status(&get(served.at, "/gone").await), 503);
    let counted = served.registry.gather();
    let refused = counted
        .iter()
        .find(|f| f.name() == "jiuzhou_requests_refused_total")
        .unwrap();
    let of_reason = |m: &prometheus::proto::Metric| {
        let reason = m.get_label().iter().find(|l| l.name() == "reason").unwrap();
        (reason.value().to_owned(), m.get_counter().get_value())
    };
    let counted: BTreeMap<_, _> = refused.get_metric().iter().map(of_reason).collect();
    let wanted = [
        ("BrokenRoute", 1.0),
        ("ConnectFailure", 1.0),
        ("NoEndpoint", 3.0),
        ("NoRoute", 1.0),
    ];
    assert_eq!(
        counted,
        wanted
            .map(|(reason, count)| (reason.to_owned(), count))
            .into()
    );
}

#[tokio::test]
async fn requests_are_shared_out_by_weight() {
    let [one, two] = [
        endpoint(async |_| Response::new(text("one"))).await,
        endpoint(async |_| Response::new(text("two"))).await,
    ];
    let backend = |service: &str, weight| Backend {
        weight,
        service: Some(service.into()),
        filters: vec![],
    };
    let rule = Rule {
        backends: vec![backend("one", 3), backend("two", 1), backend("none", 0)],
        ..to("one")
    };
    let served = serve(&routes(
        vec![("/", rule)],
        &[("one", &[one]), ("two", &[two]), ("none", &[])],
    ))
    .await;
    let mut ones = 0;
    for _ in 0..200 {
        let answer = get(served.at, "/").await;
        assert_eq!(status(&answer), 200, "{answer}");
        ones += usize::from(answer.ends_with("one"));
    }
    // Six standard deviations around 150.
    assert!((113..=187).contains(&ones), "{ones}");
}

#[tokio::test]
async fn headers_hosts_and_paths_are_changed_as_the_rule_says() {
    let change = |set: &str, remove: &str| HeaderChange {
        set: vec![(set.into(), "new".into())],
        remove: vec![remove.into()],
        ..HeaderChange::default()
    };
    let rewrite = Rewrite {
        hostname: Some("inner".into()),
        path: Some(PathChange::Prefix("/v2".into())),
    };
    let rule = Rule {
        filters: vec![
            Filter::RequestHeaders(change("x-set", "x-old")),
            Filter::Rewrite(rewrite),
            Filter::ResponseHeaders(change("x-answer", "x-endpoint")),
        ],
        ..to("ns/app:80")
    };
    let moved = Rule {
        filters: vec![Filter::Redirect(Redirect {
            scheme: Some("https".into()),
            path: Some(PathChange::Prefix("/there".into())),
            status: 301,
            ..Redirect::default()
        })],
        ..Rule::default()
    };
    let served = serve(&routes(
        vec![("/v1", rule), ("/old", moved)],
        &[("ns/app:80", &[mirror().await])],
    ))
    .await;
    let request =
        "GET /v1/x?q HTTP/1.1\r\nHost: a\r\nx-old: 1\r\nx-set: old\r\nConnection: close\r\n\r\n";
    let answer = say(served.at, request).await;
    assert!(
        answer.contains("GET /v2/x?q\n") && answer.contains("host: inner\n"),
        "{answer}"
    );
    assert!(
        answer.contains("x-set: new\n") && !answer.contains("x-old"),
        "{answer}"
    );
    assert!(
        answer.contains("x-answer: new\r\n") && !answer.contains("x-endpoint"),
        "{answer}"
    );
    let answer = get(served.at, "/old/a?b=c").await;
    assert_eq!(status(&answer), 301);
    assert!(
        answer.contains("location: https://app.example/there/a?b=c\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn calls_of_grpc_keep_their_trailers_and_their_authority() {
    let at = endpoint(async |request: Request<Incoming>| {
        let seen = format!("{} te={:?}", request.uri(), request.headers().get("te"));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from(seen))),
            Ok(Frame::trailers(trailers)),
        ];
        Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
    })
    .await;
    let mut configuration = simple(&[at]);
    configuration
        .services
        .get_mut("ns/app:80")
        .unwrap()
        .protocol = Protocol::H2c;
    let served = serve(&configuration).await;
    let stream = TokioIo::new(TcpStream::connect(served.at).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::post("http://app.example/pkg.Service/Call").header("te", "trailers");
        let request = request
            .body(Full::new(Bytes::from_static(b"call")))
            .unwrap();
        let answer = within("the call", sender.send_request(request))
            .await
            .unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        let seen = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
        assert_eq!(
            seen,
            "http://app.example/pkg.Service/Call te=Some(\"trailers\")"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_is_slow_breaks_off_or_talks_garbage_is_said_so() {
    let slow = endpoint(async |_| {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Response::new(text("late"))
    })
    .await;
    let limited = Rule {
        backend_timeout: Some(Duration::from_millis(100)),
        ..to("slow")
    };
    let whole = Rule {
        request_timeout: Some(Duration::from_millis(100)),
        ..to("slow")
    };
    let rules = vec![
        ("/backend", limited),
        ("/request", whole),
        ("/cut", to("cut")),
        ("/garbage", to("garbage")),
    ];
    let services: &[(&str, &[SocketAddr])] = &[
        ("slow", &[slow]),
        ("cut", &[bytes(b"").await]),
        ("garbage", &[bytes(b"\x00\xff no http\r\n\r\n").await]),
    ];
    let served = serve(&routes(rules, services)).await;
    for (path, expected) in [
        ("/backend", 504),
        ("/request", 504),
        ("/cut", 502),
        ("/garbage", 502),
    ] {
        assert_eq!(status(&get(served.at, path).await), expected, "{path}");
    }
}

#[tokio::test]
async fn another_endpoint_is_asked_where_the_first_takes_no_connection() {
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let served = serve(&simple(&[closed, mirror().await])).await;
    for _ in 0..20 {
        assert_eq!(status(&get(served.at, "/").await), 200);
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_endpoint_ended_costs_no_request() {
    // Closes after each answer, but never says so.
    let at = bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let served = serve(&simple(&[at])).await;
    for _ in 0..50 {
        let answer = get(served.at, "/").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn what_a_rule_rewrites_leaves_its_backend_the_rest() {
    let rewrite = |hostname: Option<&str>, path: Option<&str>| {
        Filter::Rewrite(Rewrite {
            hostname: hostname.map(Into::into),
            path: path.map(|path| PathChange::Prefix(path.into())),
        })
    };
    let mut rule = to("ns/app:80");
    rule.filters = vec![rewrite(Some("inner"), None)];
    rule.backends[0].filters = vec![rewrite(None, Some("/v2"))];
    let served = serve(&routes(
        vec![("/v1", rule)],
        &[("ns/app:80", &[mirror().await])],
    ))
    .await;
    let answer = get(served.at, "/v1/x").await;
    assert!(
        answer.contains("GET /v2/x\n") && answer.contains("host: inner\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn parameters_of_a_path_lead_past_no_narrower_rule() {
    let served = serve(&routes(
        vec![("/login", to("ns/login:80")), ("/", to("ns/app:80"))],
        &[
            ("ns/login:80", &[mirror().await]),
            ("ns/app:80", &[mirror().await]),
        ],
    ))
    .await;
    for path in ["/login;a", "/;/login", "/login;a/b", "//login;x=1"] {
        assert_eq!(status(&get(served.at, path).await), 400, "{path}");
    }
    for path in ["/login/x;jsessionid=1", "/shop;jsessionid=1", "/login", "/"] {
        assert_eq!(status(&get(served.at, path).await), 200, "{path}");
    }
}
