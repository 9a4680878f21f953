//! The shipped roles: what they hold at most, read from the files, and what they allow, asked of a
//! real API server with the real accounts.

#![expect(
    clippy::too_many_lines,
    reason = "tables of requests and what the server says to each"
)]

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{
        FAR, account, account_object, binding, call, chart, content, create, created, hub,
        hub_account, join, may_user, namespace_object, path, region, slice, with_epoch,
    },
    fault_support::province,
    support::eventually,
};

const FORBIDDEN: u16 = 403;

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().expect("a string").to_owned())
        .collect()
}

fn shipped() -> Vec<Value> {
    ["hub", "region", "guard"]
        .into_iter()
        .flat_map(chart)
        .collect()
}

/// The rules of all shipped roles, with the name of the role.
fn shipped_rules() -> Vec<(String, Value)> {
    let granting = shipped().into_iter().filter(|object| {
        ["Role", "ClusterRole"].contains(&object["kind"].as_str().expect("a kind"))
    });
    let all = granting.flat_map(|role| {
        let name = role["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let rules = role["rules"].as_array().expect("rules").clone();
        rules.into_iter().map(move |rule| (name.clone(), rule))
    });
    all.collect()
}

#[test]
fn where_guards_ask_the_chart_lets_in_guards_alone() {
    let objects = chart("guard");
    let find = |kind: &str, name: &str| {
        let is_meant =
            |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        objects.iter().find(is_meant).expect("shipped")
    };
    let policy = &find("NetworkPolicy", "jiuzhou-guard-control")["spec"];
    let (control, guards) = (
        find("Service", "guard-control"),
        find("Service", "jiuzhou-guard"),
    );
    assert_eq!(
        policy["podSelector"]["matchLabels"],
        control["spec"]["selector"]
    );
    let port = &control["spec"]["ports"][0]["targetPort"];
    let rules = policy["ingress"].as_array().expect("rules");
    let opens = |rule: &&Value| {
        let ports = rule["ports"].as_array().expect("ports, since none are all");
        ports.iter().any(|open| open["port"] == *port)
    };
    let opening: Vec<&Value> = rules.iter().filter(opens).collect();
    assert_eq!(opening.len(), 1, "{policy}");
    let from = opening[0]["from"].as_array().expect("from whom");
    assert_eq!(from.len(), 1, "{policy}");
    assert_eq!(
        from[0]["podSelector"]["matchLabels"],
        guards["spec"]["selector"]
    );
}

#[test]
fn no_shipped_role_holds_what_leads_to_everything() {
    let rules = shipped_rules();
    assert!(rules.len() > 30, "{}", rules.len());
    for (role, rule) in rules {
        let (verbs, resources) = (strings(&rule["verbs"]), strings(&rule["resources"]));
        assert!(rule["nonResourceURLs"].is_null(), "{role}: {rule}");
        for word in [
            strings(&rule["apiGroups"]),
            verbs.clone(),
            resources.clone(),
        ]
        .concat()
        {
            assert!(!word.contains('*'), "{role}: {rule}");
        }
        for verb in ["escalate", "impersonate", "approve", "sign", "proxy"] {
            assert!(!verbs.contains(&verb.to_owned()), "{role}: {rule}");
        }
        for resource in [
            "nodes/proxy",
            "pods/exec",
            "serviceaccounts/token",
            "clusterrolebindings",
            "roles",
        ] {
            assert!(!resources.contains(&resource.to_owned()), "{role}: {rule}");
        }
        let named = !strings(&rule["resourceNames"]).is_empty();
        assert!(
            named || !verbs.contains(&"bind".to_owned()),
            "{role}: {rule}"
        );
        if resources.contains(&"clusterroles".to_owned()) {
            assert_eq!(verbs, ["bind"], "{role}: {rule}");
        }
    }
}

#[test]
fn no_secrets_are_readable_everywhere_and_internal_kinds_are_in_no_role_for_users() {
    let everywhere = shipped();
    let bound = everywhere
        .iter()
        .filter(|object| object["kind"] == "ClusterRoleBinding");
    let bound: Vec<_> = bound
        .map(|object| object["roleRef"]["name"].clone())
        .collect();
    assert_eq!(bound.len(), 4, "{bound:?}");
    let internal = [
        "assignmentslices",
        "reportslices",
        "clusterreports",
        "contents",
    ];
    for (role, rule) in shipped_rules() {
        let resources = strings(&rule["resources"]);
        if role == "jiuzhou-agent" || role == "jiuzhou-hub" {
            let namespaced = everywhere.iter().any(|object| {
                object["kind"] == "Role"
                    && object["metadata"]["name"] == role.as_str()
                    && object["rules"].as_array().expect("rules").contains(&rule)
            });
            assert!(
                namespaced || !resources.contains(&"secrets".to_owned()),
                "{role}: {rule}"
            );
        }
        if role == "jiuzhou-guard-control" && resources.contains(&"secrets".to_owned()) {
            // Certificates, wherever Gateways are; it changes none, and makes the keys of tickets at home.
            let is_at_home = everywhere.iter().any(|object| {
                object["kind"] == "Role"
                    && object["metadata"]["name"] == role.as_str()
                    && object["rules"].as_array().expect("rules").contains(&rule)
            });
            let verbs = strings(&rule["verbs"]);
            let is_made = is_at_home && verbs == ["create"];
            assert!(is_made || verbs == ["list", "watch"], "{rule}");
        }
        if ["jiuzhou-view", "jiuzhou-edit", "jiuzhou-admin"].contains(&role.as_str()) {
            assert!(
                !resources.iter().any(|r| internal.contains(&r.as_str())),
                "{role}: {rule}"
            );
        }
    }
}

#[test]
fn roles_and_fence_of_a_region_name_exactly_the_allowed_kinds() {
    let mut allowed: Vec<_> = crds::ALLOWED_KINDS
        .iter()
        .map(|(group, _, _, plural)| format!("{group}/{plural}"))
        .collect();
    allowed.sort();
    let known = |role: &str, verb: &str, extra: &[&str]| {
        let rules = shipped_rules().into_iter().filter(|(name, _)| name == role);
        let rules = rules.filter(|(_, rule)| strings(&rule["verbs"]).contains(&verb.to_owned()));
        let mut found: Vec<_> = rules.flat_map(|(_, rule)| named(&rule)).collect();
        found.retain(|resource| !extra.contains(&resource.as_str()));
        found.sort();
        found
    };
    let own = ["/namespaces", "/nodes", "/pods", "/secrets", "/configmaps"];
    // What protects Apps is applied by their tenants' rights, and is no part of an App.
    let protecting = ["jiuzhou.io/trafficpolicies"];
    assert_eq!(known("jiuzhou-tenant", "create", &protecting), allowed);
    // What isolates namespaces is the agent's alone.
    let isolating = [
        "networking.k8s.io/networkpolicies",
        "/resourcequotas",
        "/limitranges",
    ];
    allowed.extend(isolating.into_iter().chain(protecting).map(str::to_owned));
    allowed.sort();
    let watched = known("jiuzhou-agent", "watch", &own[..3]);
    assert_eq!(watched, allowed);
    assert_eq!(
        known("jiuzhou-agent-namespace", "delete", &["/secrets"]),
        allowed
    );

    let fence = chart("region").into_iter().find(|o| {
        o["kind"] == "ValidatingAdmissionPolicy" && o["metadata"]["name"] == "jiuzhou-push-fence"
    });
    let fence = fence.expect("the fence");
    let rules = fence["spec"]["matchConstraints"]["resourceRules"]
        .as_array()
        .expect("rules");
    let mut fenced: Vec<_> = rules.iter().flat_map(named).collect();
    let others = [
        "/namespaces",
        "/secrets",
        "apps/replicasets",
        "rbac.authorization.k8s.io/rolebindings",
    ];
    fenced.retain(|resource| !others.contains(&resource.as_str()));
    fenced.sort();
    assert_eq!(fenced, allowed);
}

fn named(rule: &Value) -> Vec<String> {
    let group = strings(&rule["apiGroups"]).remove(0);
    let resources = strings(&rule["resources"]).into_iter();
    resources
        .map(|resource| format!("{group}/{resource}"))
        .collect()
}

/// One request of an account and whether it may make it.
struct Case(Method, String, Option<Value>, bool);

async fn check(client: &Client, who: &str, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for Case(method, path, body, allowed) in cases {
        let answer = call(client, method.clone(), &path, body.as_ref()).await;
        let right = match &answer {
            Ok(_) => allowed,
            Err(refusal) => !allowed && refusal.code == FORBIDDEN,
        };
        if !right {
            wrong.push(format!("{who}: {method} {path}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_agent_reaches_its_own_namespace_and_nothing_else() {
    let hub = hub_account().await;
    let (mine, other) = (
        join(&hub, "rbac-mine").await,
        join(&hub, "rbac-other").await,
    );
    let pack = content("rbac-pack", FAR);
    created(&hub, &slice(&mine, "slice-1", FAR)).await;
    created(&hub, &slice(&other, "slice-1", FAR)).await;
    created(&hub, &pack).await;
    let agent = account(crate::admit_support::hub().await, &mine, "agent").await;
    let get = |path: String, allowed| Case(Method::GET, path, None, allowed);
    let ours = |namespace: &str, rest: &str| {
        format!("/apis/jiuzhou.io/v1alpha1/namespaces/{namespace}/{rest}")
    };
    eventually("the agent has its rights", async || {
        let list = ours(&mine, "assignmentslices");
        let reads = call(&agent, Method::GET, &list, None).await.is_ok();
        let packs = call(&agent, Method::GET, &path(&pack, true), None)
            .await
            .is_ok();
        (reads && packs).then_some(())
    })
    .await;
    let report = |namespace: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ReportSlice",
            "metadata": {"namespace": namespace, "name": "report-1"}, "spec": {"entries": []},
        })
    };
    let lease = |namespace: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": namespace, "name": "agent"}, "spec": {"holderIdentity": "agent"},
        })
    };
    let dry = |object: &Value| format!("{}?dryRun=All", path(object, false));
    let post = |object: Value, allowed| Case(Method::POST, dry(&object), Some(object), allowed);
    let change = |path: String| {
        Case(
            Method::PATCH,
            path,
            Some(json!({"metadata": {"labels": {"a": "b"}}})),
            false,
        )
    };
    let mut cases = vec![
        get(ours(&mine, "assignmentslices"), true),
        get(ours(&mine, "assignmentslices/slice-1"), true),
        get(ours(&mine, "reportslices"), true),
        get(ours(&mine, "clusterreports"), true),
        get(format!("/api/v1/namespaces/{mine}/secrets"), true),
        get(path(&pack, true), true),
        post(report(&mine), true),
        post(lease(&mine), true),
        post(report(&other), false),
        post(lease(&other), false),
        post(slice(&mine, "forged", FAR), false),
        post(content("forged", FAR), false),
        post(account_object(&mine, "more"), false),
        post(namespace_object("jz-more"), false),
        post(
            binding(&mine, "jiuzhou-secret-reader", (&mine, "agent")),
            false,
        ),
        change(ours(&mine, "assignmentslices/slice-1")),
        change(path(&pack, true)),
        change("/apis/jiuzhou.io/v1alpha1/memberclusters/rbac-mine/status".to_owned()),
        Case(
            Method::DELETE,
            ours(&mine, "assignmentslices/slice-1"),
            None,
            false,
        ),
        Case(Method::DELETE, path(&pack, true), None, false),
    ];
    for foreign in [
        ours(&other, "assignmentslices"),
        ours(&other, "assignmentslices/slice-1"),
        ours(&other, "reportslices"),
        ours(&other, "clusterreports"),
        ours("jiuzhou-content", "contents"),
        ours("jiuzhou-system", "apps"),
        format!("/api/v1/namespaces/{other}/secrets"),
        "/api/v1/namespaces/jiuzhou-system/secrets".to_owned(),
        "/api/v1/namespaces/jiuzhou-content/secrets".to_owned(),
        format!("/apis/coordination.k8s.io/v1/namespaces/{other}/leases/agent"),
        "/api/v1/namespaces".to_owned(),
        "/api/v1/secrets".to_owned(),
        "/api/v1/nodes".to_owned(),
    ] {
        cases.push(get(foreign, false));
    }
    for plural in [
        "tenants",
        "quotas",
        "quotaledgers",
        "isolations",
        "links",
        "linkgrants",
        "apps",
        "trafficpolicies",
        "approvals",
        "regions",
        "memberclusters",
        "assignmentslices",
        "reportslices",
        "clusterreports",
        "contents",
    ] {
        cases.push(get(format!("/apis/jiuzhou.io/v1alpha1/{plural}"), false));
    }
    check(&agent, "agent", cases).await;
}

/// Whether a service account may.
async fn may(admin: &Client, who: &str, namespace: &str, what: &str, name: &str) -> bool {
    let user = format!("system:serviceaccount:{who}");
    may_user(admin, &user, namespace, what, name).await
}

/// A namespace, what is asked there, and whether it is allowed.
type Question<'a> = (&'a str, &'a str, bool);

async fn ask(admin: &Client, who: &str, questions: &[Question<'_>]) {
    let mut wrong = Vec::new();
    for (namespace, what, allowed) in questions {
        let (what, name) = what.split_once('=').unwrap_or((what, ""));
        if may(admin, who, namespace, what, name).await != *allowed {
            wrong.push(format!(
                "{who} in {namespace:?}: {what} {name}: not {allowed}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the hub may not do, whatever else is installed beside it.
fn never(home: &str) -> Vec<Question<'_>> {
    let questions = [
        ("", "create jiuzhou.io/apps"),
        ("", "update jiuzhou.io/apps"),
        ("", "create jiuzhou.io/tenants"),
        ("", "update jiuzhou.io/tenants"),
        ("", "create jiuzhou.io/quotas"),
        ("", "update jiuzhou.io/quotas"),
        ("", "create jiuzhou.io/isolations"),
        ("", "patch jiuzhou.io/isolations"),
        ("", "delete jiuzhou.io/isolations"),
        ("", "create jiuzhou.io/links"),
        ("", "patch jiuzhou.io/links"),
        ("", "create jiuzhou.io/linkgrants"),
        ("", "create jiuzhou.io/trafficpolicies"),
        ("", "update jiuzhou.io/trafficpolicies"),
        ("", "delete jiuzhou.io/trafficpolicies"),
        ("jiuzhou-system", "delete jiuzhou.io/quotaledgers"),
        ("", "create jiuzhou.io/approvals"),
        ("", "patch jiuzhou.io/regions"),
        ("", "patch jiuzhou.io/memberclusters"),
        (home, "delete jiuzhou.io/assignmentslices"),
        (home, "delete jiuzhou.io/clusterreports"),
        ("jiuzhou-content", "update jiuzhou.io/contents"),
        ("jiuzhou-content", "patch jiuzhou.io/contents"),
        ("jiuzhou-system", "delete /configmaps"),
        ("kube-system", "get /secrets"),
        ("health", "get /secrets"),
        ("", "list /secrets"),
        ("", "create /pods"),
        ("", "create /pods/exec"),
        ("", "get /nodes/proxy"),
        ("", "create /serviceaccounts/token"),
        (home, "create /serviceaccounts/token"),
        ("", "create rbac.authorization.k8s.io/clusterroles"),
        ("", "create rbac.authorization.k8s.io/roles"),
        ("", "create rbac.authorization.k8s.io/clusterrolebindings"),
        ("", "delete rbac.authorization.k8s.io/rolebindings"),
        ("", "escalate rbac.authorization.k8s.io/clusterroles"),
        ("", "impersonate /users"),
        ("", "impersonate /serviceaccounts"),
        (
            "",
            "bind rbac.authorization.k8s.io/clusterroles=cluster-admin",
        ),
        ("", "bind rbac.authorization.k8s.io/clusterroles=edit"),
        (
            "",
            "patch admissionregistration.k8s.io/validatingadmissionpolicies",
        ),
        ("", "patch apiextensions.k8s.io/customresourcedefinitions"),
    ];
    let refused = |(namespace, what)| (namespace, what, false);
    questions.into_iter().map(refused).collect()
}

#[tokio::test]
async fn with_a_region_of_its_own_the_hub_may_what_an_agent_may_and_nothing_else() {
    let running = province().await;
    let admin = running.hub().await.client;
    let mut questions = never("jz-hangzhou-a");
    for (namespace, what) in [
        // Its own memory, and what it keeps up in the hub's cluster.
        ("jiuzhou-system", "list /secrets"),
        ("jiuzhou-system", "create /secrets"),
        ("jiuzhou-system", "delete /secrets"),
        ("", "watch apps/deployments"),
        ("", "create authorization.k8s.io/subjectaccessreviews"),
        ("", "patch jiuzhou.io/apps/status"),
    ] {
        questions.push((namespace, what, true));
    }
    for what in ["create apps/deployments", "delete apps/deployments"] {
        // Only in namespaces that it was bound in.
        questions.push(("", what, false));
        questions.push(("kube-system", what, false));
    }
    ask(&admin, "jiuzhou-system:jiuzhou-hub", &questions).await;
}

#[tokio::test]
async fn the_hub_may_do_its_list_and_nothing_else() {
    let account = hub_account().await;
    let home = join(&account, "rbac-list").await;
    let admin = hub().await.client().await.unwrap();
    let mut questions: Vec<Question<'_>> = vec![
        ("", "watch jiuzhou.io/apps", true),
        ("", "watch jiuzhou.io/approvals", true),
        ("", "watch jiuzhou.io/tenants", true),
        ("", "patch jiuzhou.io/tenants/status", true),
        ("", "watch jiuzhou.io/quotas", true),
        ("", "patch jiuzhou.io/quotas/status", true),
        ("jiuzhou-system", "update jiuzhou.io/quotaledgers", true),
        ("", "watch jiuzhou.io/quotaledgers", false),
        // Admission says of which; see `admit_policies`.
        ("", "delete jiuzhou.io/tenants", true),
        ("", "delete jiuzhou.io/quotas", true),
        ("", "delete jiuzhou.io/apps", true),
        ("", "delete /namespaces", true),
        ("", "patch jiuzhou.io/apps/status", true),
        ("", "update jiuzhou.io/regions/status", true),
        ("", "patch jiuzhou.io/memberclusters/status", true),
        ("", "watch jiuzhou.io/reportslices", true),
        ("", "list coordination.k8s.io/leases", true),
        ("", "create /namespaces", true),
        ("", "create events.k8s.io/events", true),
        (
            "",
            "bind rbac.authorization.k8s.io/clusterroles=jiuzhou-agent-hub",
            true,
        ),
        ("jiuzhou-content", "create jiuzhou.io/contents", true),
        ("jiuzhou-content", "delete jiuzhou.io/contents", true),
        ("jiuzhou-system", "update /configmaps", true),
        ("jiuzhou-system", "get /secrets", true),
        ("jiuzhou-system", "create coordination.k8s.io/leases", true),
    ];
    for what in [
        "create jiuzhou.io/assignmentslices",
        "update jiuzhou.io/assignmentslices",
        "delete /secrets",
        "create /secrets",
        "list /secrets",
        "create /serviceaccounts",
        "patch coordination.k8s.io/leases",
    ] {
        questions.push((&home, what, true));
        questions.push(("health", what, false));
        questions.push(("", what, false));
    }
    questions.extend(never(&home));
    for what in ["list /secrets", "create /secrets"] {
        questions.push(("jiuzhou-system", what, false));
    }
    ask(&admin, "jiuzhou-system:jiuzhou-hub", &questions).await;

    // The server itself refuses a binding of any other role.
    let greedy = with_epoch(
        binding("rbac-greedy", "admin", ("jiuzhou-system", "jiuzhou-hub")),
        FAR,
    );
    created(&admin, &namespace_object("rbac-greedy")).await;
    let answer = create(&account, &greedy).await;
    assert!(answer.is_err_and(|refusal| refusal.code == FORBIDDEN));
}

#[tokio::test]
async fn a_regions_agent_may_enter_managed_namespaces_and_nothing_else() {
    let cluster = region().await;
    let admin = cluster.client().await.unwrap();
    let agent = account(cluster, "jiuzhou-system", "jiuzhou-agent").await;
    let mut namespace = namespace_object("rbac-health");
    namespace["metadata"]["labels"] =
        json!({crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE});
    created(&agent, &namespace).await;
    created(
        &agent,
        &binding(
            "rbac-health",
            "jiuzhou-agent-namespace",
            ("jiuzhou-system", "jiuzhou-agent"),
        ),
    )
    .await;
    created(&agent, &account_object("rbac-health", "jiuzhou-tenant")).await;
    created(
        &agent,
        &binding(
            "rbac-health",
            "jiuzhou-tenant",
            ("rbac-health", "jiuzhou-tenant"),
        ),
    )
    .await;

    let (who, tenant) = ("jiuzhou-system:jiuzhou-agent", "rbac-health:jiuzhou-tenant");
    eventually("the bindings are in force", async || {
        let inside = may(&admin, who, "rbac-health", "patch apps/deployments", "").await;
        (inside && may(&admin, tenant, "rbac-health", "create /configmaps", "").await).then_some(())
    })
    .await;
    let mut questions: Vec<Question<'_>> = vec![
        ("", "list /nodes", true),
        ("", "watch /pods", true),
        ("", "create authorization.k8s.io/subjectaccessreviews", true),
        ("rbac-health", "get /secrets", true),
        ("rbac-health", "list /secrets", false),
        ("jiuzhou-system", "create /secrets", true),
        (
            "",
            "bind rbac.authorization.k8s.io/clusterroles=jiuzhou-tenant",
            true,
        ),
        (
            "",
            "bind rbac.authorization.k8s.io/clusterroles=cluster-admin",
            false,
        ),
        ("", "get /secrets", false),
        ("kube-system", "get /secrets", false),
        ("", "create /pods", false),
        ("rbac-health", "create /pods/exec", false),
        ("", "get /nodes/proxy", false),
        ("", "patch /nodes", false),
        ("", "create /serviceaccounts/token", false),
        ("", "impersonate /users", false),
        (
            "rbac-health",
            "patch networking.k8s.io/networkpolicies",
            true,
        ),
        ("", "patch networking.k8s.io/networkpolicies", false),
        ("", "delete /resourcequotas", false),
        (
            "rbac-health",
            "create rbac.authorization.k8s.io/roles",
            false,
        ),
        (
            "",
            "create rbac.authorization.k8s.io/clusterrolebindings",
            false,
        ),
    ];
    let kinds: Vec<_> = crds::ALLOWED_KINDS
        .iter()
        .map(|(group, _, _, plural)| format!("{group}/{plural}"))
        .collect();
    let watch: Vec<_> = kinds.iter().map(|kind| format!("watch {kind}")).collect();
    let patch: Vec<_> = kinds.iter().map(|kind| format!("patch {kind}")).collect();
    let delete: Vec<_> = kinds.iter().map(|kind| format!("delete {kind}")).collect();
    questions.extend(watch.iter().map(|what| ("", what.as_str(), true)));
    for what in patch.iter().chain(&delete) {
        questions.push(("rbac-health", what, true));
        // It may make accounts before it has entered; admission says where.
        questions.push(("kube-system", what, what == "patch /serviceaccounts"));
    }
    ask(&admin, who, &questions).await;

    let mut questions: Vec<Question<'_>> = vec![];
    for what in patch.iter().chain(&delete).chain(&watch) {
        questions.push(("rbac-health", what, true));
        questions.push(("default", what, false));
    }
    for what in [
        "get /secrets",
        "create /pods",
        "create rbac.authorization.k8s.io/rolebindings",
        "create networking.k8s.io/networkpolicies",
        "get /nodes",
    ] {
        questions.push(("rbac-health", what, false));
    }
    ask(&admin, tenant, &questions).await;
}

#[tokio::test]
async fn view_edit_and_admin_cover_the_kinds_for_users() {
    let admin = hub().await.client().await.unwrap();
    created(&admin, &namespace_object("rbac-roles")).await;
    for role in ["view", "edit", "admin"] {
        created(&admin, &binding("rbac-roles", role, ("rbac-roles", role))).await;
    }
    eventually("the roles are aggregated", async || {
        may(
            &admin,
            "rbac-roles:admin",
            "rbac-roles",
            "create jiuzhou.io/approvals",
            "",
        )
        .await
        .then_some(())
    })
    .await;
    for (role, what, allowed) in [
        ("view", "watch jiuzhou.io/apps", true),
        ("view", "create jiuzhou.io/apps", false),
        ("edit", "patch jiuzhou.io/apps", true),
        ("edit", "create jiuzhou.io/approvals", false),
        ("edit", "patch jiuzhou.io/apps/status", false),
        ("edit", "patch jiuzhou.io/trafficpolicies", true),
        ("edit", "patch jiuzhou.io/trafficpolicies/status", false),
        ("view", "watch jiuzhou.io/trafficpolicies", true),
        ("admin", "delete jiuzhou.io/approvals", true),
        ("view", "watch jiuzhou.io/tenants", true),
        ("edit", "create jiuzhou.io/tenants", false),
        ("admin", "create jiuzhou.io/tenants", true),
        ("admin", "patch jiuzhou.io/tenants/status", false),
        ("edit", "create jiuzhou.io/quotas", false),
        ("admin", "create jiuzhou.io/quotas", true),
        ("admin", "patch jiuzhou.io/quotas/status", false),
        ("admin", "get jiuzhou.io/quotaledgers", false),
        ("view", "watch jiuzhou.io/isolations", true),
        ("edit", "create jiuzhou.io/linkgrants", false),
        ("admin", "create jiuzhou.io/links", true),
        ("admin", "patch jiuzhou.io/links/status", false),
        ("admin", "patch jiuzhou.io/isolations", false),
        ("admin", "get jiuzhou.io/assignmentslices", false),
        ("admin", "get jiuzhou.io/contents", false),
        ("admin", "patch jiuzhou.io/regions", false),
    ] {
        ask(
            &admin,
            &format!("rbac-roles:{role}"),
            &[("rbac-roles", what, allowed)],
        )
        .await;
    }
}

#[tokio::test]
async fn an_operator_reads_what_explain_needs_and_changes_nothing() {
    let admin = hub().await.client().await.unwrap();
    created(&admin, &namespace_object("rbac-operator")).await;
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "rbac-operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "jiuzhou-operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "ops", "namespace": "rbac-operator"}],
    });
    created(&admin, &bound).await;
    let who = "rbac-operator:ops";
    let reads = [
        "regions",
        "memberclusters",
        "tenants",
        "quotas",
        "quotaledgers",
        "isolations",
        "links",
        "linkgrants",
        "apps",
        "trafficpolicies",
        "approvals",
        "assignmentslices",
        "reportslices",
        "clusterreports",
        "contents",
    ];
    eventually("the binding is in force", async || {
        may(&admin, who, "", "list jiuzhou.io/contents", "")
            .await
            .then_some(())
    })
    .await;
    for kind in reads {
        let list = format!("list jiuzhou.io/{kind}");
        let changes = ["create", "patch", "delete"].map(|verb| format!("{verb} jiuzhou.io/{kind}"));
        let mut questions = vec![("", list.as_str(), true)];
        questions.extend(changes.iter().map(|change| ("", change.as_str(), false)));
        ask(&admin, who, &questions).await;
    }
    let questions = [
        ("", "list /namespaces", true),
        ("jiuzhou-system", "get /configmaps=jiuzhou-hub", true),
        ("jiuzhou-system", "get /configmaps", false),
        ("jiuzhou-system", "get /secrets", false),
        ("jz-hangzhou-a", "get /secrets", false),
        ("", "create /pods", false),
    ];
    ask(&admin, who, &questions).await;
}
