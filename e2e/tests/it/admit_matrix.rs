//! Who may do what, asked cell by cell of the real API server: identities, namespaces, resources and
//! verbs. What is allowed stands in `admit_matrix.txt`, and nothing else may be; `UPDATE=1` writes it
//! anew, so that a change of anybody's rights shows in review.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use futures::{StreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::create,
    apply_tenants::{ready, tenant},
    fault_support::province,
    support::eventually,
};

const ROOT: &str = "jiuzhou-system";
const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];
/// By group; ours first.
const RESOURCES: [(&str, &[&str]); 10] = [
    (
        "jiuzhou.io",
        &[
            "apps",
            "apps/status",
            "apps/finalizers",
            "tenants",
            "tenants/status",
            "quotas",
            "quotas/status",
            "isolations",
            "isolations/status",
            "links",
            "links/status",
            "linkgrants",
            "trafficpolicies",
            "trafficpolicies/status",
            "approvals",
            "regions",
            "memberclusters",
            "assignmentslices",
            "reportslices",
            "clusterreports",
            "contents",
            "quotaledgers",
        ],
    ),
    (
        "",
        &[
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "configmaps",
            "events",
            "namespaces",
            "pods",
            "pods/exec",
            "services",
            "endpoints",
            "resourcequotas",
            "limitranges",
            "nodes",
        ],
    ),
    ("apps", &["deployments", "deployments/scale", "daemonsets"]),
    (
        "rbac.authorization.k8s.io",
        &[
            "rolebindings",
            "roles",
            "clusterroles",
            "clusterrolebindings",
        ],
    ),
    ("networking.k8s.io", &["networkpolicies", "ingresses"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("events.k8s.io", &["events"]),
    (
        "admissionregistration.k8s.io",
        &[
            "validatingadmissionpolicies",
            "validatingwebhookconfigurations",
        ],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("coordination.k8s.io", &["leases"]),
];

/// A user and the groups that go with it.
struct Identity {
    name: &'static str,
    user: &'static str,
    groups: &'static [&'static str],
}

const IDENTITIES: [Identity; 5] = [
    Identity {
        name: "administrator",
        user: "matrix-ann",
        groups: &[],
    },
    Identity {
        name: "administrator of an inner tenant",
        user: "matrix-bob",
        groups: &[],
    },
    Identity {
        name: "member of an administrators' group",
        user: "matrix-eve",
        groups: &["matrix-operators"],
    },
    Identity {
        name: "ServiceAccount jiuzhou-tenant",
        user: "system:serviceaccount:matrix:jiuzhou-tenant",
        groups: &["system:serviceaccounts", "system:serviceaccounts:matrix"],
    },
    Identity {
        name: "somebody",
        user: "matrix-nobody",
        groups: &[],
    },
];

/// Namespaces as the administrator sees them.
const PLACES: [(&str, &str); 5] = [
    ("own", "matrix"),
    ("inner", "matrix-inner"),
    ("sibling", "matrixtwo"),
    ("parent", ROOT),
    ("cluster", ""),
];

async fn allowed(
    client: &Client,
    identity: &Identity,
    place: &str,
    verb: &str,
    (group, resource): (&str, &str),
) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let mut groups = vec!["system:authenticated"];
    groups.extend(identity.groups);
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {
            "user": identity.user, "groups": groups,
            "resourceAttributes": {
                "namespace": place, "verb": verb, "group": group,
                "resource": resource, "subresource": subresource,
            },
        },
    });
    let answer = create(client, &review).await.expect("a review");
    answer["status"]["allowed"] == true
}

/// Every cell, as lines that name what is allowed.
async fn matrix(client: &Client) -> (usize, String) {
    let mut cells = Vec::new();
    for (who, identity) in IDENTITIES.iter().enumerate() {
        for (at, (_, place)) in PLACES.iter().enumerate() {
            for (group, resources) in RESOURCES {
                for resource in resources {
                    for verb in VERBS {
                        cells.push((who, at, identity, *place, (group, *resource), verb));
                    }
                }
            }
        }
    }
    let count = cells.len();
    let asked = cells
        .into_iter()
        .map(|(who, at, identity, place, resource, verb)| async move {
            let yes = allowed(client, identity, place, verb, resource).await;
            yes.then_some(((who, at, resource), verb))
        });
    let answers = stream::iter(asked).buffered(32).collect::<Vec<_>>().await;
    let mut rows: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (row, verb) in answers.into_iter().flatten() {
        rows.entry(row).or_default().push(verb);
    }
    let mut text = String::new();
    for ((who, at, (group, resource)), verbs) in rows {
        let (identity, (place, _)) = (IDENTITIES[who].name, PLACES[at]);
        let group = if group.is_empty() { "core" } else { group };
        writeln!(
            text,
            "{identity} | {place} | {group}/{resource}: {}",
            verbs.join(" ")
        )
        .expect("text takes text");
    }
    (count, text)
}

#[tokio::test]
async fn everybody_may_what_the_table_says_and_nothing_else() {
    let running = province().await;
    let hub = running.hub().await;
    let by = |kind: &str, name: &str| json!({"administrators": [{"kind": kind, "name": name}]});
    let mut both = by("User", "matrix-ann");
    let group = by("Group", "matrix-operators")["administrators"][0].clone();
    both["administrators"]
        .as_array_mut()
        .expect("a list")
        .push(group);
    for (home, name, more) in [
        (ROOT, "matrix", both),
        ("matrix", "inner", by("User", "matrix-bob")),
        (ROOT, "matrixtwo", Value::Null),
    ] {
        hub.create(&tenant(home, name, &more)).await;
        ready(&hub, home, name).await;
    }
    let (ann, bob) = (&IDENTITIES[0], &IDENTITIES[1]);
    eventually("the rights are in force", async || {
        let apps = ("jiuzhou.io", "apps");
        let given = allowed(&hub.client, ann, "matrix-inner", "get", apps).await
            && allowed(&hub.client, ann, "matrix", "create", apps).await
            && allowed(&hub.client, bob, "matrix-inner", "create", apps).await;
        given.then_some(())
    })
    .await;
    let (cells, found) = matrix(&hub.client).await;
    assert!(cells >= 1_000, "{cells} cells");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/admit_matrix.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &found).expect("the table is written");
    }
    let known = fs::read_to_string(&golden).expect("the table is there");
    let (known, found): (Vec<&str>, Vec<&str>) = (known.lines().collect(), found.lines().collect());
    let more: Vec<_> = found.iter().filter(|line| !known.contains(line)).collect();
    let less: Vec<_> = known.iter().filter(|line| !found.contains(line)).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "of {cells} cells; may now: {more:#?}; may no longer: {less:#?}"
    );
}
