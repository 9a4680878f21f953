use axum::body::Body;
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::runtime::fake::{Fake, Scripted, failure, reply};

/// Small enough for tests, in the same order as the real ones.
const QUICK: Timing = Timing {
    server_ends: Duration::from_secs(1),
    idle: Duration::from_millis(150),
    backoff: (Duration::from_millis(10), Duration::from_millis(50)),
};

struct Bench {
    fake: Fake,
    freshness: Freshness,
    changes: mpsc::Receiver<Change<ConfigMap>>,
    task: JoinHandle<()>,
}

fn start(script: impl IntoIterator<Item = Scripted>) -> Bench {
    let fake = Fake::default();
    script
        .into_iter()
        .for_each(|scripted| fake.script(scripted));
    // After the script: silence.
    fake.script(Scripted::Silence);
    let client: Client = fake.client();
    let api: Api<ConfigMap> = Api::all(client);
    let freshness = Freshness::new();
    let (sink, changes) = mpsc::channel(4);
    let proof = freshness.kind("configmaps");
    let task = tokio::spawn(watch(api, Selection::default(), QUICK, sink, proof));
    Bench {
        fake,
        freshness,
        changes,
        task,
    }
}

impl Bench {
    /// Changes as text: `=a,b` replaced, `+a` applied, `-a` deleted.
    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(10), self.changes.recv()).await;
        match next.unwrap().unwrap() {
            Change::Replaced(all) => {
                let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
                format!("={}", names.join(","))
            }
            Change::Applied(object) => format!("+{}", object.name_any()),
            Change::Deleted(object) => format!("-{}", object.name_any()),
        }
    }

    async fn requests(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let log = self.fake.log();
            if log.len() >= count {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {:?}", self.fake.log());
    }
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "resourceVersion": version, "managedFields": [{"manager": "kubectl"}],
    }})
}

fn page(names: &[&str], token: &str) -> Scripted {
    let items: Vec<Value> = names.iter().map(|name| object(name, "1")).collect();
    let metadata = json!({"resourceVersion": "10", "continue": token});
    Scripted::Answer(reply(
        200,
        &json!({
            "kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items,
        }),
    ))
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// A watch that sends these lines and then ends, or stays silent.
fn events(lines: Vec<String>, ends: bool) -> Scripted {
    let sent = stream::iter(lines.into_iter().map(Ok::<_, std::io::Error>));
    let body = if ends {
        Body::from_stream(sent)
    } else {
        Body::from_stream(sent.chain(stream::pending()))
    };
    Scripted::Answer(http::Response::new(body))
}

#[tokio::test]
async fn a_list_is_whole_and_changes_follow_without_managed_fields() {
    let lines = vec![
        event("ADDED", &object("c", "11")),
        event("DELETED", &object("a", "12")),
        event("BOOKMARK", &object("", "20")),
    ];
    let mut bench = start([page(&["a"], "more"), page(&["b"], ""), events(lines, true)]);
    let first = bench.changes.recv().await.unwrap();
    let Change::Replaced(all) = first else {
        panic!("{first:?}")
    };
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .all(|object| object.metadata.managed_fields.is_none())
    );
    assert_eq!(bench.next().await, "+c");
    assert_eq!(bench.next().await, "-a");
    let log = bench.requests(4).await;
    assert!(log[1].contains("continue=more"), "{log:?}");
    assert!(log[2].contains("resourceVersion=10") && log[2].contains("timeoutSeconds=1"));
    // The bookmark moved the place to resume from.
    assert!(log[3].contains("resourceVersion=20"), "{log:?}");
}

#[tokio::test]
async fn a_list_that_breaks_off_is_never_handed_over() {
    let gone = || Scripted::Answer(failure(410, "Expired"));
    let mut bench = start([
        page(&["a"], "more"),
        gone(),
        page(&["a"], "more"),
        Scripted::Answer(failure(500, "InternalError")),
        page(&["a", "b"], ""),
    ]);
    assert_eq!(bench.next().await, "=a,b");
}

#[tokio::test]
async fn a_version_that_is_gone_means_a_new_list_after_a_pause() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "code": 410, "reason": "Expired", "message": "too old"});
    let mut bench = start([
        page(&["a"], ""),
        events(vec![event("ERROR", &status)], true),
        page(&["a"], ""),
        Scripted::Answer(failure(410, "Gone")),
        page(&["b"], ""),
    ]);
    let start = Instant::now();
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.next().await, "=b");
    assert!(start.elapsed() >= QUICK.backoff.0);
}

#[tokio::test]
async fn a_frozen_watch_is_noticed_and_resumed_where_it_stopped() {
    let mut bench = start([
        page(&["a"], ""),
        events(vec![event("MODIFIED", &object("a", "15"))], false),
        events(vec![event("MODIFIED", &object("a", "16"))], false),
    ]);
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.next().await, "+a");
    assert_eq!(bench.next().await, "+a");
    let log = bench.requests(3).await;
    assert!(log[2].contains("resourceVersion=15"), "{log:?}");
}

#[tokio::test]
async fn a_watch_that_is_asked_to_begins_anew_where_it_is_at_once() {
    let mut bench = start([
        page(&["a"], ""),
        events(vec![event("MODIFIED", &object("a", "15"))], false),
        events(vec![event("MODIFIED", &object("a", "16"))], false),
    ]);
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.next().await, "+a");
    let asked = Instant::now();
    bench.freshness.nudge();
    assert_eq!(bench.next().await, "+a");
    assert!(asked.elapsed() < QUICK.idle, "it was not the silence");
    // It is kept in whole microseconds.
    let last = bench.freshness.last("configmaps").unwrap();
    assert!(last + Duration::from_micros(1) >= asked.into_std());
    let log = bench.requests(3).await;
    assert!(log[2].contains("resourceVersion=15"), "{log:?}");
}

#[tokio::test]
async fn a_server_that_never_answers_a_watch_is_noticed() {
    let mut bench = start([page(&["a"], ""), Scripted::Silence]);
    assert_eq!(bench.next().await, "=a");
    bench.requests(3).await;
}

#[tokio::test]
async fn resuming_that_keeps_failing_ends_in_a_new_list() {
    let broken = || Scripted::Answer(failure(504, "Timeout"));
    let mut bench = start([
        page(&["a"], ""),
        broken(),
        broken(),
        broken(),
        page(&["b"], ""),
    ]);
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.next().await, "=b");
}

#[tokio::test]
async fn a_server_that_ends_watches_at_once_is_asked_ever_less_often() {
    let watches = (0..200).map(|_| events(Vec::new(), true));
    let mut bench = start(std::iter::once(page(&["a"], "")).chain(watches));
    assert_eq!(bench.next().await, "=a");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(bench.fake.log().len() < 100, "{}", bench.fake.log().len());
}

#[tokio::test]
async fn every_sign_of_life_counts_and_silence_shows() {
    let mut bench = start([page(&["a"], ""), events(Vec::new(), false)]);
    assert!(bench.freshness.listed().is_err());
    assert_eq!(bench.next().await, "=a");
    assert_eq!(bench.freshness.listed(), Ok(()));
    bench.requests(3).await;
    bench.fake.set_down(true);
    tokio::time::sleep(QUICK.idle).await;
    assert!(bench.freshness.fresh(QUICK.idle / 2).is_err());
    assert_eq!(bench.freshness.fresh(Freshness::STALE), Ok(()));
}

#[tokio::test]
async fn a_slow_reader_holds_the_watch_back_and_misses_nothing() {
    let lines = (0..50)
        .map(|n| event("ADDED", &object(&n.to_string(), &n.to_string())))
        .collect();
    let mut bench = start([page(&[], ""), events(lines, true)]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.next().await, "=");
    for n in 0..50 {
        assert_eq!(bench.next().await, format!("+{n}"));
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_reader() {
    let bench = start([page(&["a"], "")]);
    drop(bench.changes);
    tokio::time::timeout(Duration::from_secs(10), bench.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn one_unreadable_object_stops_only_itself_behind_a_guard() {
    use kube::core::DeserializeGuard;
    let fake = Fake::default();
    let bad = json!({"metadata": {"name": "bad"}, "data": 7});
    let items = json!([object("good", "1"), bad]);
    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1",
                      "metadata": {"resourceVersion": "10"}, "items": items});
    fake.script(Scripted::Answer(reply(200, &list)));
    fake.script(Scripted::Silence);
    let api: Api<DeserializeGuard<ConfigMap>> = Api::all(fake.client());
    let (sink, mut changes) = mpsc::channel::<Change<DeserializeGuard<ConfigMap>>>(1);
    let proof = Freshness::new().kind("configmaps");
    tokio::spawn(watch(api, Selection::default(), QUICK, sink, proof));
    let Some(Change::Replaced(all)) = changes.recv().await else {
        panic!("no list")
    };
    assert!(all[0].0.is_ok() && all[1].0.is_err());
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up_and_begun_again() {
    let endless = (0..=PAGES_MAX).map(|_| page(&[], "more"));
    let mut bench = start(endless.chain([page(&["a"], "")]));
    // The last of the endless pages begins the second try, which goes on to the end.
    assert_eq!(bench.next().await, "=a");
    let log = bench.fake.log();
    assert!(log.len() >= PAGES_MAX + 2, "{}", log.len());
    bench.task.abort();
}
