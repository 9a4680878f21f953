//! A waiting room between real clients and a real endpoint.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use operator::guard::config::{Configuration, Rule};
use operator::guard::rooms::{BEAT, Coordinator, RoomSummaries, RoomWords};
use operator::guard::serve::{Guard, RoomLink};
use serde_json::{Value, json};
use shield::Time;
use shield::room::RoomSettings;
use shield::ticket::Wall;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{
    Served, endpoint, mirror, routes, say, serve, settings, status, text, to, within,
};

const NAME: &str = "ns/policy";

/// An endpoint that can be sick, and how often it was asked.
#[derive(Clone, Default)]
struct Target {
    is_sick: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Target {
    async fn start(&self) -> SocketAddr {
        let target = self.clone();
        endpoint(move |_| {
            target.asked.fetch_add(1, Ordering::Relaxed);
            let is_sick = target.is_sick.load(Ordering::Relaxed);
            async move {
                let status = if is_sick {
                    StatusCode::INTERNAL_SERVER_ERROR
                } else {
                    StatusCode::OK
                };
                Response::builder().status(status).body(text("")).unwrap()
            }
        })
        .await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn room(active_users: u64) -> Value {
    json!({"scope": "Region", "activeUsers": active_users, "newPerMinute": 60_000,
        "session": {"secs": 60, "nanos": 0}, "openWhen": {"errorPercent": 50},
        "keys": [{"id": 1, "secret": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}]})
}

fn queued(endpoint: SocketAddr, room: &Value) -> Configuration {
    let rule = Rule {
        room: Some(NAME.into()),
        ..to("ns/app:80")
    };
    let mut configuration = routes(vec![("/", rule)], &[("ns/app:80", &[endpoint])]);
    let room = serde_json::from_value(room.clone()).unwrap();
    configuration.rooms.insert(NAME.into(), room);
    configuration
}

async fn ask(at: SocketAddr, headers: &str) -> String {
    let request =
        format!("GET / HTTP/1.1\r\nhost: a.example\r\n{headers}connection: close\r\n\r\n");
    say(at, request).await
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(found, value)| (found == name).then_some(value))
}

fn cookie(answer: &str) -> String {
    let pair = header(answer, "set-cookie").expect(answer);
    format!("cookie: {}\r\n", pair.split(';').next().unwrap())
}

fn document(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).expect(answer)
}

fn counter(served: &Served, name: &str, label: &str) -> f64 {
    let families = served.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric().to_vec());
    let of = |metric: &prometheus::proto::Metric| {
        metric.get_label().iter().any(|pair| pair.value() == label)
    };
    let found = metrics.unwrap_or_default().into_iter().filter(of);
    found.map(|metric| metric.get_counter().get_value()).sum()
}

#[tokio::test]
async fn who_comes_to_a_full_service_waits_with_a_ticket_and_who_is_in_goes_on() {
    let target = Target::default();
    let served = serve(&queued(target.start().await, &room(1))).await;
    let first = ask(served.at, "").await;
    assert_eq!(status(&first), 200);
    assert_eq!(header(&first, "cache-control"), Some("private"));

    let second = ask(served.at, "").await;
    assert_eq!(status(&second), 503);
    assert_eq!(
        header(&second, "content-type"),
        Some("application/problem+json")
    );
    let problem = document(&second);
    assert_eq!(problem["reason"], "Waiting");
    assert_eq!(problem["rule"], "waitingRoom");
    assert_eq!(problem["position"], 1);
    assert_eq!(problem["estimatedSeconds"], 1);
    let seconds = problem["retryAfterSeconds"].to_string();
    assert_eq!(header(&second, "retry-after"), Some(seconds.as_str()));
    let ticket = problem["ticket"].as_str().unwrap();
    assert_eq!(header(&second, "jiuzhou-ticket"), Some(ticket));

    let app = ask(served.at, &format!("jiuzhou-ticket: {ticket}\r\n")).await;
    assert_eq!(status(&app), 503);
    assert!(header(&app, "set-cookie").is_none(), "{app}");
    let browser = ask(served.at, &cookie(&second)).await;
    assert_eq!(status(&browser), 503);
    assert!(header(&browser, "jiuzhou-ticket").is_none(), "{browser}");

    for _ in 0..3 {
        assert_eq!(status(&ask(served.at, &cookie(&first)).await), 200);
    }
    assert_eq!(target.asked(), 4);
    let waited = counter(&served, "jiuzhou_requests_refused_total", "Waiting");
    assert!((waited - 3.0).abs() < 0.5, "{waited}");
}

#[tokio::test]
async fn tickets_do_not_reach_endpoints_with_a_room_or_without() {
    let mut configuration = queued(mirror().await, &room(10));
    let served = serve(&configuration).await;
    let given = ask(served.at, "").await;
    let mine = cookie(&given);
    let (name, _) = mine.trim_start_matches("cookie: ").split_once('=').unwrap();
    assert_eq!(name.len(), "jiuzhou-ticket-".len() + 16, "{name}");
    configuration.rules[0].room = None;
    configuration.ports[0].port = super::support::free_port();
    let without = serve(&configuration).await;
    let ticket = header(&given, "jiuzhou-ticket").unwrap();
    let both = format!("{}; a=b\r\njiuzhou-ticket: {ticket}\r\n", mine.trim_end());
    for at in [served.at, without.at] {
        let answer = ask(at, &both).await;
        let (_, seen) = answer.split_once("\r\n\r\n").unwrap();
        assert!(seen.contains("cookie: a=b\n"), "{seen}");
        assert!(!seen.contains("jiuzhou-ticket"), "{seen}");
    }
}

#[tokio::test]
async fn the_page_speaks_the_browsers_language_and_loads_nothing() {
    let target = Target::default();
    let served = serve(&queued(target.start().await, &room(1))).await;
    assert_eq!(status(&ask(served.at, "").await), 200);
    let page = async |language: &str| {
        let headers = format!("accept: text/html,*/*;q=0.8\r\naccept-language: {language}\r\n");
        let answer = ask(served.at, &headers).await;
        assert_eq!(status(&answer), 503);
        let seconds = header(&answer, "retry-after").unwrap().to_owned();
        let refresh = format!("<meta http-equiv=refresh content={seconds}>");
        assert!(answer.contains(&refresh), "{answer}");
        assert!(answer.contains("role=status") && answer.contains("name=viewport"));
        assert!(
            !answer.contains("http://") && !answer.contains("https://"),
            "{answer}"
        );
        assert!(header(&answer, "set-cookie").is_some());
        answer
    };
    let chinese = page("zh-CN,zh;q=0.9,en;q=0.8").await;
    assert!(
        chinese.contains("<html lang=zh-CN>") && chinese.contains("正在排队"),
        "{chinese}"
    );
    let english = page("en-GB,en;q=0.9").await;
    assert!(
        // Which place it is depends on when the room was last moved on.
        english.contains("<html lang=en>") && english.contains("Your place is about <strong>"),
        "{english}"
    );
}

#[tokio::test]
async fn ten_thousand_forged_tickets_never_reach_the_endpoint_and_cost_less_than_one_that_does() {
    const FORGED: usize = 10_000;
    let target = Target::default();
    let served = serve(&queued(target.start().await, &room(1))).await;
    let good = ask(served.at, "").await;
    let ticket = header(&good, "jiuzhou-ticket").unwrap().to_owned();
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let asking = async {
        for number in 0..FORGED {
            let forged = format!("{}{number:05}", &ticket[..ticket.len() - 5]);
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\njiuzhou-ticket: {forged}\r\n\r\n");
            requests.write_all(request.as_bytes()).await.unwrap();
        }
    };
    let reading = async {
        let (mut seen, mut buffer) = (0, vec![0; 1 << 16]);
        let mut tail = Vec::new();
        while seen < FORGED {
            let read = answers.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "the guard stays connected");
            tail.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&tail);
            seen += text.matches("HTTP/1.1 503").count();
            assert!(!text.contains("HTTP/1.1 2") && !text.contains("HTTP/1.1 500"));
            // What may be the beginning of the next answer is kept.
            let kept = tail.len().saturating_sub("HTTP/1.1 50".len());
            tail.drain(..kept);
        }
    };
    within("all are answered", async { tokio::join!(asking, reading) }).await;
    let refused = counter(&served, "jiuzhou_tickets_refused_total", "Forged");
    assert!((refused - 10_000.0).abs() < 0.5, "{refused}");
    assert_eq!(
        target.asked(),
        1,
        "no connection, no place and no turn was spent on them"
    );
    let again = ask(served.at, &format!("jiuzhou-ticket: {ticket}\r\n")).await;
    assert_eq!(status(&again), 200);
}

#[tokio::test]
async fn a_later_rule_that_refuses_leaves_its_ticket_with_who_was_let_in() {
    let target = Target::default();
    let mut configuration = queued(target.start().await, &room(1));
    configuration.rules[0].policy = Some(NAME.into());
    let policy = json!({"name": NAME, "rateLimits": [{"name": "all", "scope": "Instance",
        "quota": {"rate": {"requests": 1, "perSeconds": 3600}, "burst": 1}}]});
    let policy = serde_json::from_value(policy).unwrap();
    configuration.policies.insert(NAME.into(), policy);
    let served = serve(&configuration).await;
    // The limit counts nobody who waits, and the room nobody twice.
    let first = ask(served.at, "").await;
    assert_eq!(status(&first), 200);
    assert_eq!(status(&ask(served.at, "").await), 503);
    assert_eq!(status(&ask(served.at, &cookie(&first)).await), 429);

    let served = {
        configuration.ports[0].port = super::support::free_port();
        configuration.policies.get_mut(NAME).unwrap().rate_limits[0].key =
            serde_json::from_value(json!([{"header": "x-none"}])).unwrap();
        configuration.policies.get_mut(NAME).unwrap().rate_limits[0].on_missing =
            serde_json::from_value(json!("Refuse")).unwrap();
        serve(&configuration).await
    };
    let refused = ask(served.at, "").await;
    assert_eq!(status(&refused), 429);
    assert!(header(&refused, "set-cookie").is_some(), "{refused}");
}

#[tokio::test]
async fn the_queue_opens_on_errors_and_whoever_waited_is_let_in() {
    let target = Target::default();
    let served = serve(&queued(target.start().await, &room(1_000_000))).await;
    let first = ask(served.at, "").await;
    target.is_sick.store(true, Ordering::Relaxed);
    let mine = cookie(&first);
    let opened = async {
        loop {
            // Two hundred requests in five seconds are the least that says something.
            for _ in 0..20 {
                ask(served.at, &mine).await;
            }
            let answer = ask(served.at, "").await;
            if status(&answer) == 503 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waiting = within("the queue opens", opened).await;
    target.is_sick.store(false, Ordering::Relaxed);
    assert_eq!(
        status(&ask(served.at, &mine).await),
        200,
        "who is in is not asked to queue"
    );
    let mut ticket = cookie(&waiting);
    let let_in = async {
        loop {
            let answer = ask(served.at, &ticket).await;
            if status(&answer) == 200 {
                return;
            }
            ticket = cookie(&answer);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("it is their turn", let_in).await;
}

/// A body of four bytes of which only some come, the last of them after two seconds.
async fn upload(at: SocketAddr, ticket: String, bytes: usize) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\n{ticket}content-length: 4\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for byte in b"slow".iter().take(bytes) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
    if bytes == 4 {
        let _ = within("an answer", stream.read(&mut [0; 512])).await;
    }
}

#[tokio::test]
async fn who_sends_slowly_or_leaves_while_still_to_send_does_not_open_the_room() {
    let mut room = room(1_000_000);
    room["openWhen"] = json!({"p99Over": {"secs": 1, "nanos": 0}, "errorPercent": 1});
    let reading = endpoint(async |request: Request<Incoming>| {
        let _ = request.into_body().collect().await;
        Response::new(text(""))
    });
    let served = serve(&queued(reading.await, &room)).await;
    let mine = cookie(&ask(served.at, "").await);
    // Distress of three seconds opens a room, and of a hundred requests that end meanwhile nine are such uploads.
    for _ in 0..25 {
        tokio::spawn(upload(served.at, mine.clone(), 4));
        tokio::spawn(upload(served.at, mine.clone(), 3));
        for _ in 0..20 {
            ask(served.at, &mine).await;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(status(&ask(served.at, "").await), 200);
}

#[tokio::test]
async fn a_change_of_the_configuration_keeps_who_is_in_and_who_waits() {
    let target = Target::default();
    let mut configuration = queued(target.start().await, &room(1));
    let served = serve(&configuration).await;
    let first = ask(served.at, "").await;
    let second = ask(served.at, "").await;
    assert_eq!(status(&second), 503);
    let more = serde_json::from_value(room(2)).unwrap();
    configuration.rooms.insert(NAME.into(), more);
    configuration.revision = "2".into();
    served.guard.apply(&configuration).await.unwrap();
    let let_in = async {
        while status(&ask(served.at, &cookie(&second)).await) != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("there is room for one more", let_in).await;
    assert_eq!(status(&ask(served.at, &cookie(&first)).await), 200);
    assert_eq!(status(&ask(served.at, "").await), 503);

    configuration.rules[0].room = Some("ns/other".into());
    let error = served.guard.apply(&configuration).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(error.contains("ns/other"), "{error}");
    assert_eq!(
        status(&ask(served.at, "").await),
        503,
        "the last good one stays"
    );
}

/// Carries words between guards and a coordinator, as guard control does.
async fn exchange(links: Vec<RoomLink>, settings: RoomSettings) {
    let mut coordinator = Coordinator::new();
    coordinator.configure([(NAME.to_owned(), settings)].into());
    let start = Instant::now();
    loop {
        let now = Time::ZERO.after(start.elapsed());
        for (number, link) in links.iter().enumerate() {
            let told = serde_json::to_vec(&link.summaries()).unwrap();
            let told: RoomSummaries = serde_json::from_slice(&told).unwrap();
            coordinator.hear(&number.to_string(), told, now).unwrap();
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = Wall::default().after(since.unwrap());
        let words = serde_json::to_vec(&coordinator.advance(wall, now)).unwrap();
        let words: RoomWords = serde_json::from_slice(&words).unwrap();
        for link in &links {
            link.hear(&words);
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// A guard that shares its rooms with another one.
async fn shared(configuration: &Configuration) -> (Guard, RoomLink, SocketAddr) {
    let mut configuration = configuration.clone();
    configuration.ports[0].port = super::support::free_port();
    let guard = Guard::new(&settings(), &prometheus::Registry::new()).unwrap();
    let link = guard.share_rooms(NonZeroU32::new(2).unwrap());
    guard.apply(&configuration).await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], configuration.ports[0].port));
    (guard, link, at)
}

#[tokio::test]
async fn two_guards_are_one_queue_and_a_third_takes_their_tickets() {
    let target = Target::default();
    let configuration = queued(target.start().await, &room(2));
    let settings = RoomSettings::try_from(configuration.rooms[NAME].spec()).unwrap();
    let (_one, link_one, at_one) = shared(&configuration).await;
    let (_two, link_two, at_two) = shared(&configuration).await;
    let speaking = tokio::spawn(exchange(vec![link_one, link_two.clone()], settings));

    // One each, by the share that a guard has before it hears anything.
    let (first, second) = (ask(at_one, "").await, ask(at_two, "").await);
    assert_eq!((status(&first), status(&second)), (200, 200));
    let mut waiting = Vec::new();
    for at in [at_one, at_two, at_one] {
        waiting.push(ask(at, "").await);
    }
    assert!(waiting.iter().all(|answer| status(answer) == 503));
    // Whoever is in at one is in at the other, and positions are of the whole queue.
    assert_eq!(status(&ask(at_two, &cookie(&first)).await), 200);
    let last = async {
        let mut ticket = document(&waiting[2])["ticket"].as_str().unwrap().to_owned();
        loop {
            let answer = document(&ask(at_two, &format!("jiuzhou-ticket: {ticket}\r\n")).await);
            answer["ticket"].as_str().unwrap().clone_into(&mut ticket);
            let told = link_two.summaries().0[NAME].epoch;
            if told > 0 {
                return answer["position"].as_u64().unwrap();
            }
            tokio::time::sleep(BEAT).await;
        }
    };
    let last = within("the coordinator is heard", last).await;
    assert!((1..=3).contains(&last), "{last}");

    let (_three, _, at_three) = shared(&configuration).await;
    assert_eq!(status(&ask(at_three, &cookie(&second)).await), 200);
    speaking.abort();
}
