//! What the agent asks of the member cluster, against an API server in memory.

use std::sync::Arc;

use http::{Request, Response};
use kube::client::Body;

use super::*;
use crate::runtime::fake::{Fake, Scripted, failure, reply};

/// Answers every request, and says what it was asked.
fn cluster(code: u16) -> (Member, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let asked = log.clone();
    let answer = move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            asked.lock().unwrap().push(line);
            let failure = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "AlreadyExists", "message": "it is there"});
            let response = Response::builder().status(code);
            response.body(Body::from(failure.to_string().into_bytes()))
        }
    };
    let member = Member {
        client: Client::new(tower::service_fn(answer), "default"),
        contact: Contact(Arc::new(Mutex::new(Instant::now()))),
        epoch: None,
        subject: subject("system:serviceaccount:jiuzhou-system:jiuzhou-agent"),
    };
    (member, log)
}

#[tokio::test]
async fn a_namespace_that_somebody_created_meanwhile_is_not_taken_over() {
    let (member, log) = cluster(409);
    let create = Action::CreateNamespace {
        name: "health".into(),
        exists: false,
    };
    let asker = Asker::Namespace("health".into());
    let outcomes = member
        .carry_out(vec![(asker, create)], &Vault::default(), None)
        .await;
    assert!(matches!(outcomes[..], [(_, Outcome::Failed { .. })]));
    assert_eq!(*log.lock().unwrap(), ["POST /api/v1/namespaces"]);
}

const WEB: &str = "/api/v1/namespaces/health/configmaps/web";

fn in_cluster(fake: &Fake) -> Member {
    Member {
        client: fake.client(),
        contact: Contact(Arc::new(Mutex::new(Instant::now()))),
        epoch: None,
        subject: subject("system:serviceaccount:jiuzhou-system:jiuzhou-agent"),
    }
}

/// What comes of deleting an object, seen in this version or not seen.
async fn delete(fake: &Fake, version: Option<&str>) -> Outcome {
    let delete = Action::Delete {
        key: ObjectKey {
            kind: Kind::ConfigMap,
            namespace: "health".into(),
            name: "web".into(),
        },
        uid: "object-1".into(),
        resource_version: version.map(Into::into),
    };
    let asker = Asker::App("uid-1".into());
    let outcomes = in_cluster(fake)
        .carry_out(vec![(asker, delete)], &Vault::default(), None)
        .await;
    outcomes.into_iter().next().expect("one outcome").1
}

#[tokio::test]
async fn a_delete_says_which_object_in_which_version_it_means() {
    let fake = Fake::default();
    fake.put(WEB, json!({"metadata": {"name": "web", "uid": "object-1"}}));
    let outcome = delete(&fake, Some("7")).await;
    assert!(
        matches!(outcome, Outcome::Deleted { gone: false, .. }),
        "{outcome:?}"
    );
    let preconditions = &fake.bodies()[0]["preconditions"];
    assert_eq!(
        *preconditions,
        json!({"uid": "object-1", "resourceVersion": "7"})
    );
    // What is not seen is known by its UID alone.
    fake.put(WEB, json!({"metadata": {"name": "web", "uid": "object-1"}}));
    delete(&fake, None).await;
    assert_eq!(
        fake.bodies()[1]["preconditions"],
        json!({"uid": "object-1"})
    );
}

#[tokio::test]
async fn another_object_under_the_name_of_one_that_is_not_seen_says_that_it_is_gone() {
    let fake = Fake::default();
    for (version, gone) in [(None, true), (Some("7"), false)] {
        fake.script(Scripted::Answer(failure(409, "Conflict")));
        let outcome = delete(&fake, version).await;
        let deleted = matches!(outcome, Outcome::Deleted { gone: true, .. });
        assert_eq!(deleted, gone, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_in_the_namespace_is_told_from_a_refusal() {
    let fake = Fake::default();
    let forbidden = |message: &str| {
        let status = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
        Scripted::Answer(reply(403, &status))
    };
    fake.script(forbidden("configmaps \"web\" is forbidden: User \"a\" cannot delete resource \"configmaps\" in API group \"\" in the namespace \"health\""));
    assert!(matches!(
        delete(&fake, Some("7")).await,
        Outcome::Unbound(..)
    ));
    fake.script(forbidden(
        "admission webhook \"keep\" denied the request: not on Sundays",
    ));
    assert!(matches!(
        delete(&fake, Some("7")).await,
        Outcome::Failed { .. }
    ));
}

#[tokio::test]
async fn what_was_confirmed_too_long_ago_is_not_begun() {
    let fake = Fake::default();
    let delete = Action::LetGo {
        key: ObjectKey {
            kind: Kind::ConfigMap,
            namespace: "health".into(),
            name: "web".into(),
        },
        uid: "object-1".into(),
    };
    let past = Instant::now().checked_sub(Duration::from_secs(1));
    let asker = Asker::App("uid-1".into());
    let outcomes = in_cluster(&fake)
        .carry_out(vec![(asker, delete)], &Vault::default(), past)
        .await;
    assert!(matches!(outcomes[..], [(_, Outcome::Late)]), "{outcomes:?}");
    assert!(fake.log().is_empty());
}
