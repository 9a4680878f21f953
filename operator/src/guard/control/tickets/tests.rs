use serde_json::{Value, json};

use super::*;
use crate::runtime::fake::Fake;

const PATH: &str = "/api/v1/namespaces/jiuzhou-guard/secrets/jiuzhou-guard-tickets";

fn key(byte: u8) -> String {
    STANDARD.encode([byte; BYTES])
}

fn stored(data: &Value) -> Vec<Arc<TicketSecret>> {
    let secret = json!({"metadata": {"name": NAME, "namespace": "jiuzhou-guard"}, "data": data});
    vec![Arc::new(serde_json::from_value(secret).unwrap())]
}

fn heard(data: &Value) -> Tickets {
    let mut tickets = Tickets::new("jiuzhou-guard");
    tickets.hear(&stored(data));
    tickets
}

fn known(tickets: &Tickets) -> Vec<(u8, String)> {
    let keys = tickets.keys();
    let keys = keys.known().unwrap_or_default().iter();
    keys.map(|key| (key.id, key.secret.clone())).collect()
}

fn why(tickets: &Tickets) -> String {
    match tickets.keys() {
        TicketKeys::Missing(why) => why,
        other @ (TicketKeys::Known(_) | TicketKeys::Assumed) => panic!("{other:?}"),
    }
}

#[test]
fn the_key_that_signs_stands_first_and_the_other_is_honoured() {
    let one = heard(&json!({"key-7": key(7)}));
    assert_eq!(known(&one), [(7, key(7))]);
    let signing = STANDARD.encode("8\n");
    let two = heard(&json!({"key-7": key(7), "key-8": key(8), "signing": signing}));
    assert_eq!(known(&two), [(8, key(8)), (7, key(7))]);
    assert_eq!(*two.wanted(), Wanted::Nothing);
}

#[test]
fn a_broken_secret_is_named_with_the_entry_and_the_last_good_keys_stay() {
    let cases = [
        (json!({}), "no key"),
        (
            json!({"key-1": STANDARD.encode([1; 33])}),
            "key-1 is not 32 bytes",
        ),
        (json!({"key-01": key(1)}), "\"key-01\""),
        (json!({"token": key(1)}), "\"token\""),
        (
            json!({"key-1": key(1), "key-2": key(2)}),
            "no entry signing",
        ),
        (
            json!({"key-1": key(1), "signing": STANDARD.encode("2")}),
            "entry signing",
        ),
        (
            json!({"key-1": key(1), "key-2": key(2), "key-3": key(3)}),
            "3 keys",
        ),
    ];
    for (data, expected) in cases {
        let mut tickets = heard(&data);
        let said = why(&tickets);
        assert!(said.contains(expected) && said.contains("; "), "{said}");
        assert!(!said.contains(&key(1)), "{said}");
        tickets.hear(&stored(&json!({"key-9": key(9)})));
        assert!(!tickets.is_broken());
        tickets.hear(&stored(&data));
        assert!(tickets.is_broken());
        assert_eq!(known(&tickets), [(9, key(9))], "after {data}");
        assert_eq!(
            *tickets.wanted(),
            Wanted::Nothing,
            "it is never overwritten"
        );
    }
}

#[test]
fn a_secret_that_is_gone_is_wanted_again_with_the_keys_that_it_had() {
    let mut tickets = Tickets::new("jiuzhou-guard");
    let strange = json!({"metadata": {"name": "another"}, "data": {"key-1": key(1)}});
    tickets.hear(&[Arc::new(serde_json::from_value(strange).unwrap())]);
    assert_eq!(*tickets.wanted(), Wanted::Fresh);
    assert!(why(&tickets).contains("jiuzhou-guard/jiuzhou-guard-tickets"));
    tickets.hear(&stored(&json!({"key-3": key(3)})));
    tickets.hear(&[]);
    assert_eq!(known(&tickets), [(3, key(3))]);
    let Wanted::Again(keys) = tickets.wanted() else {
        panic!("{:?}", tickets.wanted())
    };
    let again = serde_json::to_value(secret(keys)).unwrap();
    assert_eq!(known(&heard(&again["data"])), [(3, key(3))]);
}

#[test]
fn values_are_not_printed() {
    let tickets = heard(&json!({"key-1": key(1)}));
    let printed = format!("{tickets:?} {:?}", stored(&json!({"key-1": key(1)})));
    assert!(!printed.contains(&key(1)), "{printed}");
}

/// Waits until something was asked of the API server.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    ended.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_missing_secret_is_created_once_with_a_key_that_nobody_had_before() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let fake = Fake::default();
        let (sender, wanted) = watch::channel(Wanted::Fresh);
        let task = tokio::spawn(create(fake.client(), "jiuzhou-guard".into(), wanted));
        until("it is created", || fake.get(PATH).is_some()).await;
        let stored = fake.get(PATH).unwrap();
        sender.send_replace(Wanted::Nothing);
        let tickets = heard(&stored["data"]);
        keys.extend(known(&tickets));
        drop(sender);
        task.await.unwrap();
        let creations = fake
            .log()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count();
        assert_eq!(creations, 1);
    }
    assert_eq!((keys[0].0, keys[1].0), (FIRST, FIRST));
    assert_ne!(keys[0].1, keys[1].1);
}

#[tokio::test]
async fn a_secret_that_is_there_is_left_as_it_is() {
    let fake = Fake::default();
    let theirs = json!({"metadata": {"name": NAME}, "data": {"key-5": key(5)}});
    fake.put(PATH, theirs);
    let (sender, wanted) = watch::channel(Wanted::Fresh);
    let task = tokio::spawn(create(fake.client(), "jiuzhou-guard".into(), wanted));
    let tries = || {
        fake.log()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count()
    };
    until("it is tried", || tries() > 0).await;
    sender.send_replace(Wanted::Again(vec![TicketKey {
        id: 6,
        secret: key(6),
    }]));
    until("it is tried again", || tries() > 1).await;
    drop(sender);
    task.await.unwrap();
    assert_eq!(fake.get(PATH).unwrap()["data"], json!({"key-5": key(5)}));
    assert!(
        fake.log().iter().all(|line| line.starts_with("POST")),
        "{:?}",
        fake.log()
    );
}
