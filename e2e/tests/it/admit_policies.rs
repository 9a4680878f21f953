//! The shipped admission policies on a real API server: fence, agents, authors, approvers, and
//! where the hub and the agents may use their rights.

#![expect(
    clippy::too_many_lines,
    reason = "tables of requests and what the server says to each"
)]

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{
        FAR, account, account_object, app, apply, binding, call, content, create, created, fence,
        hub, hub_account, join, namespace_object, patch, patch_status, path, raise_fence, refused,
        region, slice, try_create, with_epoch,
    },
    support::eventually,
};

/// How often the fence is raised and a write of the old leader tried.
const ROUNDS: i64 = 20;
const BEHIND: &str = "is behind the fence at";

async fn admin() -> Client {
    hub().await.client().await.expect("a client")
}

async fn fence_at(client: &Client) -> i64 {
    let read = call(client, Method::GET, &path(&fence(0), true), None).await;
    let read = read.expect("the fence")["data"]["leaderEpoch"].clone();
    read.as_str().expect("an epoch").parse().expect("a number")
}

fn refusal(answer: Result<Value, crate::admit_support::Refusal>) -> String {
    answer.expect_err("it is refused").message
}

#[tokio::test]
async fn once_the_fence_is_seen_to_be_raised_no_write_of_an_old_leader_is_taken() {
    let (account, admin) = (hub_account().await, admin().await);
    let home = join(&account, "fence").await;
    // The policy is in force, and an epoch that nobody led under is behind.
    refused(&account, &slice(&home, "probe", 0), BEHIND).await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fence-tenant"}});
    created(&admin, &namespace).await;
    created(&admin, &app("fence-tenant", "a")).await;
    let region = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region", "metadata": {"name": "fence"},
        "spec": {"displayName": "新区", "code": "980000", "level": "Province"},
    });
    created(&admin, &region).await;
    let base = fence_at(&admin).await;
    for round in 1..=ROUNDS {
        let (old, new) = (base + round - 1, base + round);
        let name = format!("slice-{round}");
        raise_fence(&admin, new).await;
        // The server learns of it by a watch of its own, in milliseconds and not at once: a new
        // leader asks as here, by a dry run, before it writes.
        refused(&account, &slice(&home, &name, old), BEHIND).await;
        let message = refusal(create(&account, &slice(&home, &name, old)).await);
        assert!(message.contains(BEHIND), "round {round}: {message}");
        let taken = create(&account, &slice(&home, &name, new)).await;
        assert!(taken.is_ok(), "round {round}: {taken:?}");
    }
    let (old, new) = (base + ROUNDS - 1, base + ROUNDS);
    for (epoch, taken) in [(old, false), (new, true)] {
        let status = json!({"status": {"leaderEpoch": epoch}});
        let annotation =
            json!({"metadata": {"annotations": {crds::label::LEADER_EPOCH: epoch.to_string()}}});
        let app = path(&app("fence-tenant", "a"), true);
        let region = format!("{}/status", path(&region, true));
        let answers = [
            (
                "content",
                create(&account, &content("fence-pack", epoch)).await,
            ),
            (
                "app status",
                call(
                    &account,
                    Method::PATCH,
                    &format!("{app}/status"),
                    Some(&status),
                )
                .await,
            ),
            (
                "app",
                call(&account, Method::PATCH, &app, Some(&annotation)).await,
            ),
            (
                "region status",
                call(&account, Method::PATCH, &region, Some(&status)).await,
            ),
            (
                "namespace",
                try_create(&account, &with_epoch(namespace_object("jz-fence-2"), epoch)).await,
            ),
            (
                "account",
                try_create(&account, &with_epoch(account_object(&home, "more"), epoch)).await,
            ),
            (
                "binding",
                patch(
                    &account,
                    &binding(&home, "jiuzhou-agent-hub", (&home, "agent")),
                    &annotation,
                )
                .await,
            ),
            (
                "secret",
                try_create(&account, &with_epoch(secret(&home), epoch)).await,
            ),
        ];
        for (what, answer) in answers {
            match answer {
                Ok(_) => assert!(taken, "{what} at {epoch}"),
                Err(refusal) => assert!(
                    !taken && refusal.message.contains(BEHIND),
                    "{what} at {epoch}: {refusal:?}"
                ),
            }
        }
    }
    let unmarked = refusal(try_create(&account, &secret(&home)).await);
    assert!(
        unmarked.contains("must carry its leader epoch"),
        "{unmarked}"
    );
}

fn secret(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": "copy"}})
}

#[tokio::test]
async fn nobody_lowers_or_deletes_the_fence_and_nobody_else_is_held_up_by_it() {
    let (account, admin) = (hub_account().await, admin().await);
    let fence = fence(0);
    let lower = format!("{}?dryRun=All", path(&fence, true));
    for client in [&account, &admin] {
        eventually("the fence holds", async || {
            let answer = call(client, Method::PUT, &lower, Some(&fence)).await;
            answer
                .err()
                .filter(|r| r.message.contains("must not fall below"))
                .map(|_| ())
        })
        .await;
    }
    let answer = call(&admin, Method::DELETE, &lower, None).await;
    assert!(refusal(answer).contains("must not fall below"));
    let others = namespace_object("fence-others");
    assert!(try_create(&admin, &others).await.is_ok());
}

#[tokio::test]
async fn an_agent_writes_under_its_own_name_and_marks_nothing() {
    let hub = hub_account().await;
    let (mine, other) = (join(&hub, "voice").await, join(&hub, "voice-2").await);
    let agent = account(crate::admit_support::hub().await, &mine, "agent").await;
    // Somebody gives it more than it should have: admission still says no.
    let admin = admin().await;
    for namespace in [&mine, &other] {
        created(
            &admin,
            &binding(namespace, "cluster-admin", (&mine, "agent")),
        )
        .await;
    }
    let report = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ClusterReport",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterUID": "cluster-1", "agentVersion": "1", "kubernetesVersion": "v1"},
        })
    };
    let lease = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": namespace, "name": name}, "spec": {"holderIdentity": "agent"},
        })
    };
    let marked = |key: &str, value: Value| {
        let mut object = report(&mine, "voice");
        object["metadata"][key] = value;
        object
    };
    let mut smuggled = content("smuggled", FAR);
    smuggled["metadata"]["namespace"] = json!(mine);
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]);
    for (object, message) in [
        (
            report(&mine, "voice-2"),
            "the ClusterReport of this agent must be named voice",
        ),
        (
            report(&other, "voice-2"),
            "an agent writes only in its own namespace jz-voice",
        ),
        (
            lease(&mine, "voice"),
            "the Lease of an agent must be named agent",
        ),
        (
            lease(&other, "agent"),
            "an agent writes only in its own namespace jz-voice",
        ),
        (
            slice(&mine, "forged", FAR),
            "an agent writes ReportSlices, its ClusterReport and its Lease",
        ),
        (
            smuggled,
            "an agent writes ReportSlices, its ClusterReport and its Lease",
        ),
        (
            marked("ownerReferences", owner),
            "neither ownerReferences nor finalizers",
        ),
        (
            marked("finalizers", json!(["jiuzhou.io/removal"])),
            "neither ownerReferences nor finalizers",
        ),
        (
            marked("labels", json!({"example.gov/storage": "fast"})),
            "labels that an agent writes must begin with jiuzhou.io/",
        ),
    ] {
        refused(&agent, &object, message).await;
    }
    for object in [
        report(&mine, "voice"),
        lease(&mine, "agent"),
        marked("labels", json!({"jiuzhou.io/part": "1"})),
    ] {
        let answer = try_create(&agent, &object).await;
        assert!(answer.is_ok(), "{object}: {answer:?}");
    }
}

fn changed_by(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][crds::label::CHANGED_BY].as_str()
}

#[tokio::test]
async fn the_author_of_a_change_is_who_made_it_and_the_finalizer_stands_once() {
    let (hub, admin) = (hub_account().await, admin().await);
    created(&admin, &namespace_object("author")).await;
    created(&admin, &account_object("author", "ci")).await;
    created(&admin, &binding("author", "admin", ("author", "ci"))).await;
    let ci = account(crate::admit_support::hub().await, "author", "ci").await;
    let object = app("author", "a");
    // The policy is in force, and the pipeline has its rights.
    eventually("creations are stamped", async || {
        let answer = try_create(&ci, &object).await.ok()?;
        changed_by(&answer).map(|_| ())
    })
    .await;
    let name = "system:serviceaccount:author:ci";
    let once = json!([crds::APP_FINALIZER]);

    let mut forged = object.clone();
    forged["metadata"]["annotations"] =
        json!({crds::label::CHANGED_BY: "mallory", "example.gov/x": "1"});
    forged["metadata"]["finalizers"] = once.clone();
    let taken = create(&ci, &forged).await.expect("taken");
    assert_eq!(changed_by(&taken), Some(name));
    assert_eq!(taken["metadata"]["finalizers"], once);

    let mark = |user: &str| json!({"metadata": {"annotations": {crds::label::CHANGED_BY: user}}});
    let taken = patch(&admin, &object, &mark("mallory"))
        .await
        .expect("taken");
    assert_eq!(
        changed_by(&taken),
        Some(name),
        "metadata alone changes no author"
    );
    let erased = json!({"metadata": {"annotations": null}});
    let taken = patch(&admin, &object, &erased).await.expect("taken");
    assert_eq!(
        changed_by(&taken),
        Some(name),
        "nor does taking all annotations away"
    );
    let mut change = mark(name);
    change["spec"] = json!({"tier": "Core"});
    let taken = patch(&admin, &object, &change).await.expect("taken");
    let both = format!("{name}\nadmin");
    assert_eq!(
        changed_by(&taken),
        Some(&*both),
        "nobody makes a change in another's name"
    );

    let epoch = json!({"metadata": {"annotations": {crds::label::LEADER_EPOCH: FAR.to_string()}}});
    let taken = patch(&hub, &object, &epoch).await.expect("taken");
    assert_eq!(
        changed_by(&taken),
        Some(&*both),
        "the hub is nobody's author"
    );
    let mut change = epoch;
    change["spec"] = json!({"tier": "General"});
    let message = refusal(patch(&hub, &object, &change).await);
    assert!(
        message.contains("the hub must not change the spec of an App"),
        "{message}"
    );

    // Applied again and again, as pipelines do.
    let applied = app("author", "b");
    for _ in 0..3 {
        let taken = apply(&ci, &applied).await.expect("taken");
        assert_eq!(taken["metadata"]["finalizers"], once);
        assert_eq!(changed_by(&taken), Some(name));
    }
}

#[tokio::test]
async fn whoever_had_a_hand_in_what_is_rolled_out_now_is_written_down() {
    let (hub, admin) = (hub_account().await, admin().await);
    created(&admin, &namespace_object("authors")).await;
    created(&admin, &account_object("authors", "ci")).await;
    created(&admin, &binding("authors", "admin", ("authors", "ci"))).await;
    let ci = account(crate::admit_support::hub().await, "authors", "ci").await;
    let object = app("authors", "a");
    let name = "system:serviceaccount:authors:ci";
    eventually("creations are stamped", async || {
        let answer = try_create(&ci, &object).await.ok()?;
        changed_by(&answer).map(|_| ())
    })
    .await;
    let taken = create(&ci, &object).await.expect("taken");
    assert_eq!(changed_by(&taken), Some(name));

    let tier = |tier: &str| json!({"spec": {"tier": tier}});
    let both = format!("{name}\nadmin");
    for change in ["Core", "Important", "General"] {
        let taken = patch(&admin, &object, &tier(change)).await.expect("taken");
        assert_eq!(changed_by(&taken), Some(&*both), "nothing is complete yet");
    }
    let taken = patch(&ci, &object, &tier("Core")).await.expect("taken");
    assert_eq!(changed_by(&taken), Some(&*both), "each stands there once");

    // The hub says that all clusters run it.
    let generation = &taken["metadata"]["generation"];
    let complete = json!({"status": {"leaderEpoch": FAR, "observedGeneration": generation, "rollout": {
        "contentHash": "3f786850e387550fdab8", "state": "Complete", "since": "2026-11-26T00:00:00Z",
        "proven": "3f786850e387550fdab8",
    }}});
    patch_status(&hub, &object, &complete).await.expect("taken");
    let taken = patch(&admin, &object, &tier("General"))
        .await
        .expect("taken");
    assert_eq!(
        changed_by(&taken),
        Some("admin"),
        "the next change begins anew"
    );
    let taken = patch(&ci, &object, &tier("Core")).await.expect("taken");
    assert_eq!(
        changed_by(&taken),
        Some(&*format!("admin\n{name}")),
        "an old status is no end"
    );
}

#[tokio::test]
async fn an_approver_is_who_asks() {
    let admin = admin().await;
    created(&admin, &namespace_object("approver")).await;
    let approval = |approver: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"namespace": "approver", "name": "a"},
            "spec": {
                "target": {"kind": "App", "name": "a"}, "step": "rest",
                "contentHash": "3f786850e387550fdab8", "approver": approver,
                "decision": "Approve", "expires": "2099-12-01T00:00:00Z",
            },
        })
    };
    let message = "spec.approver must be the user who creates the Approval: admin";
    refused(
        &admin,
        &approval("security-admin@zhejiang.example"),
        message,
    )
    .await;
    assert!(try_create(&admin, &approval("admin")).await.is_ok());
}

#[tokio::test]
async fn what_is_decided_for_the_province_is_a_link_or_an_emergency() {
    let admin = admin().await;
    let approval = |target: serde_json::Value, step: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"namespace": "jiuzhou-system", "generateName": "a-"},
            "spec": {
                "target": target, "step": step, "contentHash": "3f786850e387550fdab8",
                "approver": "admin", "decision": "Approve", "expires": "2099-12-01T00:00:00Z",
                "reason": "flood",
            },
        })
    };
    let app = json!({"kind": "App", "namespace": "health", "name": "alerts"});
    let nowhere = json!({"kind": "App", "name": "alerts"});
    for (target, step) in [
        (&app, "rest"),
        (&app, "cross-zone"),
        (&nowhere, "emergency"),
    ] {
        let message = "spec.target.namespace says where that is";
        refused(&admin, &approval(target.clone(), step), message).await;
    }
    let mut emergency = approval(app, "emergency");
    let taken = try_create(&admin, &emergency).await;
    assert!(taken.is_ok(), "{taken:?}");
    emergency["spec"]["reason"] = json!("");
    refused(&admin, &emergency, "an emergency takes a spec.reason").await;
}

#[tokio::test]
async fn whoever_approves_links_between_zones_puts_no_app_before_others() {
    let (fleet, admin) = (hub().await, admin().await);
    let system = "jiuzhou-system";
    let approval = |by: &str, kind: &str, step: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"namespace": system, "name": "a"},
            "spec": {
                "target": {"kind": kind, "namespace": "health", "name": "a"}, "step": step,
                "contentHash": "3f786850e387550fdab8", "decision": "Approve", "reason": "flood",
                "approver": format!("system:serviceaccount:{system}:{by}"),
                "expires": "2099-12-01T00:00:00Z",
            },
        })
    };
    let (link, app) = (("Link", "cross-zone"), ("App", "emergency"));
    for (role, own, other) in [("security", link, app), ("emergency", app, link)] {
        let name = format!("approves-{role}");
        created(&admin, &account_object(system, &name)).await;
        let role = format!("jiuzhou-{role}-approver");
        created(&admin, &binding(system, &role, (system, &name))).await;
        let client = account(fleet, system, &name).await;
        let own = approval(&name, own.0, own.1);
        eventually("its own is taken", async || {
            try_create(&client, &own).await.ok()
        })
        .await;
        let other = approval(&name, other.0, other.1);
        refused(&client, &other, "takes that verb on approvals").await;
    }
}

#[tokio::test]
async fn apps_keep_out_of_reserved_namespaces_and_the_message_says_where_they_go() {
    let admin = admin().await;
    for namespace in [
        "kube-system",
        "jiuzhou-system",
        "jiuzhou-content",
        "default",
    ] {
        let message = format!(
            "namespace {namespace} is reserved: create the App in the namespace of its tenant"
        );
        refused(&admin, &app(namespace, "a"), &message).await;
    }
}

#[tokio::test]
async fn the_hub_binds_its_roles_where_they_belong_and_touches_no_other_namespace() {
    let (hub, admin) = (hub_account().await, admin().await);
    let home = join(&hub, "bind").await;
    created(&admin, &namespace_object("bind-tenant")).await;
    let itself = ("jiuzhou-system", "jiuzhou-hub");
    for (object, message) in [
        (
            binding("kube-system", "jiuzhou-secret-reader", itself),
            "in tenants' namespaces alone",
        ),
        (
            binding("default", "jiuzhou-secret-reader", itself),
            "in tenants' namespaces alone",
        ),
        (
            binding("bind-tenant", "jiuzhou-secret-reader", (&home, "agent")),
            "bound to the hub alone",
        ),
        (
            binding("bind-tenant", "jiuzhou-hub-cluster-namespace", itself),
            "in jz-* namespaces alone",
        ),
        (
            binding(&home, "jiuzhou-agent-hub", ("bind-tenant", "default")),
            "ServiceAccount agent of the same jz-* namespace",
        ),
        (
            binding("bind-tenant", "jiuzhou-content-reader", (&home, "agent")),
            "in jiuzhou-content alone",
        ),
        (
            binding(
                "jiuzhou-content",
                "jiuzhou-content-reader",
                ("bind-tenant", "default"),
            ),
            "bound to agents alone",
        ),
        (
            namespace_object("kube-more"),
            "must not touch namespaces of Kubernetes or of the platform",
        ),
        (
            namespace_object("jiuzhou-more"),
            "must not touch namespaces of Kubernetes or of the platform",
        ),
    ] {
        refused(&hub, &with_epoch(object, FAR), message).await;
    }
    let reader = with_epoch(binding("bind-tenant", "jiuzhou-secret-reader", itself), FAR);
    let answer = try_create(&hub, &reader).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// A namespace that a Tenant owns, with one Tenant in it; `clearing` once its Tenant is being deleted.
async fn tenants_namespace(admin: &Client, name: &str, clearing: bool) -> (Value, Value) {
    let mut namespace = namespace_object(name);
    namespace["metadata"]["annotations"] = json!({crds::label::TENANT_UID: "uid-1"});
    created(admin, &namespace).await;
    let tenant = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "inner", "namespace": name}, "spec": {"displayName": "内设机构"},
    });
    created(admin, &tenant).await;
    if clearing {
        let mark = json!({"metadata": {"annotations": {crds::label::CLEARING: "uid-1"}}});
        patch(admin, &namespace, &mark).await.expect("it is marked");
    }
    (namespace, tenant)
}

#[tokio::test]
async fn whose_a_namespace_is_only_the_hub_and_those_who_could_make_the_tenant_say() {
    let (hub, admin) = (hub_account().await, admin().await);
    created(&admin, &namespace_object("marks")).await;
    created(&admin, &account_object("marks", "self-service")).await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "marks"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "patch"]}],
    });
    created(&admin, &role).await;
    let mut bound = binding("marks", "marks", ("marks", "self-service"));
    bound["kind"] = json!("ClusterRoleBinding");
    bound["metadata"] = json!({"name": "marks"});
    created(&admin, &bound).await;
    let user = account(crate::admit_support::hub().await, "marks", "self-service").await;
    let marked = |name: &str, part: &str, mark: &str, value: &str| {
        let mut namespace = namespace_object(name);
        namespace["metadata"][part] = json!({mark: value});
        namespace
    };
    let owned = marked("marks-a", "annotations", crds::label::TENANT_UID, "uid-1");
    refused(&user, &owned, "is written by the hub alone").await;
    let clearing = marked("marks-a", "annotations", crds::label::CLEARING, "uid-1");
    refused(&user, &clearing, "delete the Tenant instead").await;
    let claim = marked("marks-a", "labels", crds::label::CLAIM, "marks-a");
    refused(&user, &claim, "may create Tenants in namespace marks").await;
    assert!(try_create(&admin, &claim).await.is_ok());
    // The hub makes its own, and takes none that does not say so.
    assert!(
        try_create(&hub, &with_epoch(owned.clone(), FAR))
            .await
            .is_ok()
    );
    created(&admin, &namespace_object("marks-b")).await;
    let seize = json!({"metadata": {"annotations": {
        crds::label::TENANT_UID: "uid-1", crds::label::LEADER_EPOCH: FAR.to_string(),
    }}});
    let message = refusal(patch(&hub, &namespace_object("marks-b"), &seize).await);
    assert!(message.contains("is written by the hub alone"), "{message}");
}

#[tokio::test]
async fn in_a_namespace_that_is_emptied_nothing_new_begins() {
    let admin = admin().await;
    tenants_namespace(&admin, "emptied", true).await;
    refused(
        &admin,
        &app("emptied", "late"),
        "nothing new is taken there",
    )
    .await;
}

#[tokio::test]
async fn the_hub_deletes_only_what_a_deleted_tenant_leaves_behind() {
    let (account, admin) = (hub_account().await, admin().await);
    let (kept, inner) = tenants_namespace(&admin, "deletes-kept", false).await;
    let (cleared, leftover) = tenants_namespace(&admin, "deletes-cleared", true).await;
    let plain = namespace_object("deletes-plain");
    created(&admin, &plain).await;
    let delete = async |object: &Value| {
        let path = format!("{}?dryRun=All", path(object, true));
        call(&account, Method::DELETE, &path, None).await
    };
    eventually("the policy is in force", async || {
        let refused = delete(&inner).await.err()?;
        refused
            .message
            .contains("jiuzhou.io/clearing")
            .then_some(())
    })
    .await;
    for object in [&kept, &plain] {
        let message = refusal(delete(object).await);
        assert!(message.contains("jiuzhou.io/clearing"), "{message}");
    }
    for object in [&cleared, &leftover] {
        delete(object).await.expect("it may go");
    }
}

#[tokio::test]
async fn a_tenants_administrator_changes_no_right_that_the_hub_gave() {
    let (hub, admin) = (hub_account().await, admin().await);
    let name = "tenant-rights";
    tenants_namespace(&admin, name, false).await;
    let given = with_epoch(
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {
                "name": "jiuzhou-tenant-admin", "namespace": name,
                "labels": {crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE},
            },
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "jiuzhou-tenant-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "ann", "namespace": name}],
        }),
        FAR,
    );
    created(&hub, &given).await;
    created(&admin, &account_object(name, "ann")).await;
    let ann = account(crate::admit_support::hub().await, name, "ann").await;
    let mut own = binding(name, "jiuzhou-tenant-view", (name, "reader"));
    own["metadata"] = json!({"name": "readers", "namespace": name});
    created(&ann, &own).await;
    // Without effect as long as the policy is not in force.
    let change = |method| {
        let path = format!("{}?dryRun=All", path(&given, true));
        let body = (method == Method::PATCH).then(|| json!({"subjects": []}));
        let ann = &ann;
        async move { call(ann, method, &path, body.as_ref()).await }
    };
    eventually("the policy is in force", async || {
        let refused = change(Method::PATCH).await.err()?;
        refused
            .message
            .contains("spec.administrators")
            .then_some(())
    })
    .await;
    let message = refusal(change(Method::DELETE).await);
    assert!(message.contains("spec.administrators"), "{message}");
    let token = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "token", "namespace": name,
            "annotations": {"kubernetes.io/service-account.name": "jiuzhou-tenant"},
        },
    });
    refused(&ann, &token, "nobody makes tokens of ServiceAccounts").await;
    let mut squatter = own.clone();
    squatter["metadata"]["name"] = json!("jiuzhou-tenant-view");
    refused(&ann, &squatter, "are the hub's").await;
    // More than it has itself it gives nobody.
    let mut greedy = own.clone();
    greedy["metadata"]["name"] = json!("greedy");
    greedy["roleRef"]["name"] = json!("edit");
    let message = refusal(create(&ann, &greedy).await);
    assert!(
        message.contains("attempting to grant RBAC permissions"),
        "{message}"
    );
}

#[tokio::test]
async fn nobody_but_the_hub_and_administrators_makes_a_clusters_namespace() {
    let admin = admin().await;
    created(&admin, &namespace_object("squat")).await;
    created(&admin, &account_object("squat", "self-service")).await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "squat"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]}],
    });
    created(&admin, &role).await;
    let mut bound = binding("squat", "squat", ("squat", "self-service"));
    bound["kind"] = json!("ClusterRoleBinding");
    bound["metadata"] = json!({"name": "squat"});
    created(&admin, &bound).await;
    let user = account(hub().await, "squat", "self-service").await;
    let message = "namespaces jz-* are made by the hub";
    refused(&user, &namespace_object("jz-hangzhou-z"), message).await;
    assert!(
        try_create(&user, &namespace_object("hangzhou-z"))
            .await
            .is_ok()
    );
    assert!(
        try_create(&admin, &namespace_object("jz-hangzhou-z"))
            .await
            .is_ok()
    );
}

fn managed(name: &str) -> Value {
    let mut namespace = namespace_object(name);
    namespace["metadata"]["labels"] =
        json!({crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE});
    namespace
}

#[tokio::test]
async fn a_regions_agent_enters_only_namespaces_that_are_marked_as_managed() {
    let cluster = region().await;
    let admin = cluster.client().await.unwrap();
    let agent = account(cluster, "jiuzhou-system", "jiuzhou-agent").await;
    created(&admin, &namespace_object("enter-not")).await;
    created(&admin, &managed("enter")).await;
    let itself = ("jiuzhou-system", "jiuzhou-agent");
    for (object, message) in [
        (
            binding("kube-system", "jiuzhou-agent-namespace", itself),
            "must not touch namespace kube-system",
        ),
        (
            binding("default", "jiuzhou-agent-namespace", itself),
            "must not touch namespace default",
        ),
        (
            binding("jiuzhou-system", "jiuzhou-agent-namespace", itself),
            "must not touch namespace jiuzhou-system",
        ),
        (
            binding("enter-not", "jiuzhou-agent-namespace", itself),
            "app.kubernetes.io/managed-by=jiuzhou, which enter-not does not have",
        ),
        (
            binding("enter", "jiuzhou-agent-namespace", ("enter", "default")),
            "bound to the agent itself alone",
        ),
        (
            binding("enter", "jiuzhou-tenant", ("enter-not", "jiuzhou-tenant")),
            "ServiceAccount jiuzhou-tenant of the same namespace",
        ),
        (managed("kube-more"), "must not touch namespace kube-more"),
        (
            account_object("kube-system", "jiuzhou-tenant"),
            "must not touch namespace kube-system",
        ),
    ] {
        refused(&agent, &object, message).await;
    }
    let label =
        json!({"metadata": {"labels": {crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE}}});
    for system in ["kube-system", "default", "jiuzhou-system"] {
        let message = refusal(patch(&agent, &namespace_object(system), &label).await);
        assert!(message.contains("must not touch"), "{message}");
    }
    for object in [
        binding("enter", "jiuzhou-agent-namespace", itself),
        binding("enter", "jiuzhou-tenant", ("enter", "jiuzhou-tenant")),
    ] {
        created(&agent, &object).await;
    }
}

#[tokio::test]
async fn a_pushing_hub_is_fenced_in_the_member_too_and_nobody_else_is() {
    let cluster = region().await;
    let admin = cluster.client().await.unwrap();
    let push = account(cluster, "jiuzhou-system", "jiuzhou-push").await;
    let agent = account(cluster, "jiuzhou-system", "jiuzhou-agent").await;
    refused(&push, &managed("push-tenant"), "the fence was never raised").await;
    raise_fence(&push, 7).await;
    refused(
        &push,
        &managed("push-tenant"),
        "must carry its leader epoch in the annotation",
    )
    .await;
    created(&push, &with_epoch(managed("push-tenant"), 7)).await;
    let own = binding(
        "push-tenant",
        "jiuzhou-agent-namespace",
        ("jiuzhou-system", "jiuzhou-push"),
    );
    created(&push, &with_epoch(own, 7)).await;
    let settings = |name: &str, epoch| {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "push-tenant", "name": name},
        });
        with_epoch(object, epoch)
    };
    created(&push, &settings("settings", 7)).await;
    for round in 8..8 + ROUNDS {
        raise_fence(&push, round).await;
        refused(&push, &settings("late", round - 1), BEHIND).await;
        let message = refusal(create(&push, &settings("late", round - 1)).await);
        assert!(message.contains(BEHIND), "{message}");
    }
    assert!(create(&push, &settings("late", 8 + ROUNDS)).await.is_ok());
    let plain = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "push-tenant", "name": "users"},
    });
    assert!(create(&admin, &plain).await.is_ok());
    assert!(try_create(&agent, &managed("push-agent")).await.is_ok());
}
