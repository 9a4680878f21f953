//! What the agent asks of the member cluster, against an API server in memory.

use std::sync::Arc;

use http::{Request, Response};
use kube::client::Body;

use super::*;

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
        .carry_out(vec![(asker, create)], &Vault::default())
        .await;
    assert!(matches!(outcomes[..], [(_, Outcome::Failed(_))]));
    assert_eq!(*log.lock().unwrap(), ["POST /api/v1/namespaces"]);
}
