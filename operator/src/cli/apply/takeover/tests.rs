use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};

use super::*;

fn entry(manager: &str, operation: &str, subresource: &str, fields: &Value) -> ManagedFieldsEntry {
    serde_json::from_value(json!({
        "manager": manager, "operation": operation, "subresource": subresource,
        "apiVersion": "jiuzhou.io/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": fields,
        "time": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

fn annotations() -> Value {
    json!({"f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}})
}

fn by_kubectl() -> ManagedFieldsEntry {
    let fields = json!({
        "f:metadata": annotations(),
        "f:spec": {".": {}, "f:tier": {}, "f:overrides": {}},
    });
    entry(CLIENT_SIDE, "Update", "", &fields)
}

fn owned(entries: &[ManagedFieldsEntry], manager: &str) -> Vec<Value> {
    let of = entries
        .iter()
        .filter(|e| e.manager.as_deref() == Some(manager));
    of.map(|e| e.fields_v1.clone().unwrap().0).collect()
}

#[test]
fn fields_of_kubectl_apply_become_ours_but_for_its_own_note() {
    let status = entry(CLIENT_SIDE, "Update", "status", &json!({"f:status": {}}));
    let edited = entry(
        "kubectl-edit",
        "Update",
        "",
        &json!({"f:spec": {"f:zone": {}}}),
    );
    let before = [by_kubectl(), status.clone(), edited.clone()];
    let after = taken_over(&before).unwrap();
    let note = json!({"f:metadata": {"f:annotations": {
        "f:kubectl.kubernetes.io/last-applied-configuration": {}}}});
    assert_eq!(
        owned(&after, MANAGER),
        [json!({
            "f:metadata": {"f:annotations": {".": {}}},
            "f:spec": {".": {}, "f:tier": {}, "f:overrides": {}},
        })]
    );
    assert_eq!(owned(&after, CLIENT_SIDE), [note, json!({"f:status": {}})]);
    assert!(after.contains(&status) && after.contains(&edited));
    let ours = after.iter().find(|e| is(e, MANAGER, "Apply")).unwrap();
    assert_eq!(ours.time, by_kubectl().time);
    assert_eq!(
        taken_over(&after),
        None,
        "once moved there is nothing to move"
    );
}

#[test]
fn fields_are_added_to_those_that_were_ours_before() {
    let ours = entry(
        MANAGER,
        "Apply",
        "",
        &json!({"f:spec": {"f:tier": {}, "f:zone": {}, "f:rollout": {"f:soak": {}}}}),
    );
    let theirs = entry(
        CLIENT_SIDE,
        "Update",
        "",
        &json!({"f:spec": {"f:tier": {}, "f:zone": {"f:x": {}}, "f:rollout": {}, "f:overrides": {}}}),
    );
    let after = taken_over(&[ours, theirs]).unwrap();
    assert_eq!(after.len(), 1, "kubectl owns nothing any more");
    assert_eq!(
        owned(&after, MANAGER),
        [json!({"f:spec": {
            "f:tier": {}, "f:overrides": {},
            "f:zone": {".": {}, "f:x": {}},
            "f:rollout": {".": {}, "f:soak": {}},
        }})]
    );
}

#[test]
fn what_is_of_others_or_of_another_version_stays_as_it_is() {
    let fields = || json!({"f:spec": {"f:tier": {}}});
    let ours = entry(MANAGER, "Apply", "", &fields());
    let mut other = by_kubectl();
    other.api_version = Some("jiuzhou.io/v1".to_owned());
    for stays in [
        entry("kubectl", "Apply", "", &fields()),
        entry("kubectl-edit", "Update", "", &fields()),
        entry(CLIENT_SIDE, "Update", "status", &fields()),
        entry(
            CLIENT_SIDE,
            "Update",
            "",
            &json!({"f:metadata": {"f:annotations": {
                "f:kubectl.kubernetes.io/last-applied-configuration": {}}}}),
        ),
        other,
    ] {
        assert_eq!(
            taken_over(&[ours.clone(), stays.clone()]),
            None,
            "{stays:?}"
        );
    }
    assert_eq!(taken_over(&[]), None);
}

/// An API server that has an App of kubectl's, refuses the first patch since somebody wrote in between,
/// and notes what it was asked.
fn api() -> (Api<DynamicObject>, Arc<Mutex<Vec<Method>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut log = log.lock().unwrap();
        log.push(request.method().clone());
        let object = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
            "metadata": {"name": "web", "resourceVersion": "7", "managedFields": [by_kubectl()]},
        });
        let conflict = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 409,
            "reason": "Conflict", "message": "the object has been modified",
        });
        let (code, body) = match log.len() {
            2 => (StatusCode::CONFLICT, conflict),
            _ => (StatusCode::OK, object),
        };
        let body = Body::from(body.to_string().into_bytes());
        let answer = Response::builder().status(code).body(body).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    let kind = GroupVersionKind::gvk("jiuzhou.io", "v1alpha1", "App");
    let client = Client::new(service, "default");
    let api = Api::namespaced_with(client, "health", &ApiResource::from_gvk(&kind));
    (api, asked)
}

#[tokio::test]
async fn where_somebody_wrote_in_between_the_move_is_made_from_what_is_there_now() {
    let (api, asked) = api();
    take_over(&api, "web").await.unwrap();
    let methods = [Method::GET, Method::PATCH, Method::GET, Method::PATCH];
    assert_eq!(*asked.lock().unwrap(), methods);
}
