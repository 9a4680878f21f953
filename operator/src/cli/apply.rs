//! `jiuzhou apply`: several kinds in one go, in the order in which they need each other, until all of
//! them are Ready.

mod stand;
mod takeover;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::response::StatusCause;
use kube::core::{Status, TypeMeta};
use kube::{Api, Client, ResourceExt as _, discovery};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::stand::{Trouble, Wait};
use super::failure::Asked;
use super::manifests;
use super::output::{Format, Paint, columns, number};

/// Field manager of what people apply with this command.
const MANAGER: &str = "jiuzhou-apply";
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Kinds in the order in which they need each other; what is not named comes before Apps.
const ORDER: [&str; 6] = [
    "Namespace",
    "Region",
    "MemberCluster",
    "Isolation",
    "Tenant",
    "Quota",
];
const LAST: [&str; 3] = ["LinkGrant", "App", "Link"];

/// One object of a file.
struct Item {
    object: DynamicObject,
    api: Api<DynamicObject>,
    /// Whether its kind tells by a condition when it is Ready.
    tells: bool,
}

/// Applies files and waits until everything in them is Ready.
pub(super) async fn apply(
    client: &Client,
    from: &Asked,
    files: &[PathBuf],
    timeout: Duration,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + timeout;
    let mut objects = Vec::new();
    for file in manifests::files(files)? {
        objects.extend(read(&file)?);
    }
    if objects.is_empty() {
        bail!("the files hold no objects");
    }
    objects.sort_by_key(rank);
    let brought: BTreeSet<String> = objects.iter().filter_map(brings).collect();
    let mut items = Vec::new();
    let mut refused = Vec::new();
    for object in objects {
        let what = shown(&object);
        let comes = object.namespace().is_some_and(|n| brought.contains(&n));
        let until = if comes { end } else { Instant::now() };
        match one(client, object, until).await {
            Ok(item) => {
                tell(format, &format!("{what} applied"))?;
                items.push(item);
            }
            Err(error) => {
                let message = format!("{:#}", from.plainly(error));
                tell(format, &format!("{what} not applied: {message}"))?;
                let reason = "NotApplied".to_owned();
                refused.push(Trouble {
                    what,
                    reason,
                    message,
                    stands_still: true,
                });
            }
        }
    }
    let count = items.len();
    let late = until_ready(items, end, from, format).await?;
    finish(count, &refused, &late, format)
}

fn read(file: &Path) -> anyhow::Result<Vec<DynamicObject>> {
    let text = manifests::text(file)?;
    let one = |document: &str| {
        serde_saphyr::from_str(document)
            .with_context(|| format!("{} holds what is no object", file.display()))
    };
    manifests::documents(&text).map(one).collect()
}

/// What comes first, by kind, and of Tenants the outer ones.
fn rank(object: &DynamicObject) -> (usize, usize) {
    let kind = object
        .types
        .as_ref()
        .map_or("", |types| types.kind.as_str());
    let at = |list: &[&str]| list.iter().position(|known| *known == kind);
    let place = match (at(&ORDER), at(&LAST)) {
        (Some(first), _) => first,
        (None, Some(last)) => ORDER.len() + 1 + last,
        (None, None) => ORDER.len(),
    };
    let depth = object.namespace().map_or(0, |name| match name.as_str() {
        crds::SYSTEM_NAMESPACE => 0,
        name => name.matches('-').count() + 1,
    });
    (place, if kind == "Tenant" { depth } else { 0 })
}

fn shown(object: &DynamicObject) -> String {
    let kind = object
        .types
        .as_ref()
        .map_or("", |types| types.kind.as_str());
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

/// The namespace that comes with an object.
fn brings(object: &DynamicObject) -> Option<String> {
    let name = object.metadata.name.clone()?;
    match object.types.as_ref()?.kind.as_str() {
        "Namespace" => Some(name),
        "Tenant" => {
            let home = object.namespace()?;
            let key = (home.as_str().into(), name.as_str().into());
            Some(plan::world::owned_namespace(&key).to_string())
        }
        _ => None,
    }
}

/// Applies an object, once its namespace is there, if that may still come.
async fn one(client: &Client, object: DynamicObject, end: Instant) -> anyhow::Result<Item> {
    let types = object
        .types
        .clone()
        .context("it has no apiVersion and kind")?;
    let gvk = (&types).try_into()?;
    let found = discovery::pinned_kind(client, &gvk).await;
    let (resource, capabilities) = found.map_err(|error| unknown(error, &types))?;
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (discovery::Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
        (discovery::Scope::Namespaced, None) => bail!("metadata.namespace must say where it lives"),
        (discovery::Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let mut params = PatchParams::apply(MANAGER).validation_strict();
    let name = object.name_any();
    takeover::take_over(&api, &name).await.map_err(refused)?;
    loop {
        match api.patch(&name, &params, &Patch::Apply(&object)).await {
            Ok(object) => {
                let tells = types.api_version.starts_with(crds::GROUP)
                    && !matches!(types.kind.as_str(), "Approval" | "LinkGrant");
                return Ok(Item { object, api, tells });
            }
            // The namespace of a Tenant comes a moment after the Tenant.
            Err(kube::Error::Api(status))
                if status.is_not_found() && Instant::now() + PAUSE < end =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(kube::Error::Api(status)) if !params.force && is_of_kubectl(&status) => {
                params = params.force();
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

/// Field managers of `kubectl apply`, client-side and server-side.
const KUBECTL_APPLY: [&str; 2] = ["kubectl-client-side-apply", "kubectl"];

/// Whether only `kubectl apply` owns what is in the way: the file was applied before, by another command.
/// What somebody edited or patched by hand is his.
fn is_of_kubectl(status: &Status) -> bool {
    let details = status.details.as_ref();
    let causes = details.map_or(&[][..], |details| &details.causes);
    let kubectl = |cause: &StatusCause| {
        let mut names = KUBECTL_APPLY.iter();
        names.any(|name| cause.message.contains(&format!("conflict with \"{name}\"")))
    };
    status.is_conflict() && !causes.is_empty() && causes.iter().all(kubectl)
}

/// Why a kind is not known, and what to do.
fn unknown(error: kube::Error, types: &TypeMeta) -> anyhow::Error {
    let group_missing = matches!(&error, kube::Error::Api(status) if status.is_not_found());
    if group_missing || matches!(error, kube::Error::Discovery(_)) {
        let TypeMeta { api_version, kind } = types;
        return anyhow::anyhow!(
            "the hub serves no kind {kind} of apiVersion {api_version}: see kubectl api-resources for what there is"
        );
    }
    anyhow::Error::from(error).context("the hub does not answer what kinds it has")
}

/// What the API server says, and what to do.
fn refused(error: kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = error else {
        return error.into();
    };
    let causes = status
        .details
        .as_ref()
        .map_or(0, |details| details.causes.len());
    let next = if status.is_conflict() && causes > 0 {
        "; change it with the tool that owns these fields, or take them out of the file"
    } else {
        ""
    };
    anyhow::anyhow!("{}{next}", status.message)
}

/// Waits until everything is Ready, or all that is left stands still until somebody acts; what is not Ready
/// is returned with what it waits on.
async fn until_ready(
    items: Vec<Item>,
    end: Instant,
    from: &Asked,
    format: Format,
) -> anyhow::Result<Vec<Trouble>> {
    let items = items.into_iter().filter(|item| item.tells);
    let mut waiting: Vec<(Item, Wait)> = items.map(|item| (item, Wait::default())).collect();
    loop {
        let mut still = Vec::new();
        for (item, before) in waiting {
            let what = shown(&item.object);
            let Some(trouble) = look(&item, &what, from).await else {
                tell(format, &format!("{what} is Ready"))?;
                continue;
            };
            let how = if trouble.stands_still {
                "stands still"
            } else {
                "waits"
            };
            let line = format!("{what} {how}: {}: {}", trouble.reason, trouble.message);
            let (wait, is_news) = before.next(trouble, Instant::now());
            if is_news {
                tell(format, &line)?;
            }
            still.push((item, wait));
        }
        waiting = still;
        let now = Instant::now();
        // Nothing of the file goes on any more, so that nothing of it can help the rest.
        let is_over = waiting.iter().all(|(_, wait)| wait.is_over(now));
        if is_over || now + PAUSE > end {
            let left = waiting.into_iter().filter_map(|(_, wait)| wait.trouble);
            return Ok(left.collect());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why an object is not Ready as it is written now.
async fn look(item: &Item, what: &str, from: &Asked) -> Option<Trouble> {
    match item.api.get(&item.object.name_any()).await {
        Ok(now) => stand::trouble(&now, what),
        Err(error) => Some(Trouble {
            what: what.to_owned(),
            reason: "Unknown".to_owned(),
            message: from.sentence(&error),
            stands_still: false,
        }),
    }
}

/// A line of progress, for people alone.
fn tell(format: Format, line: &str) -> anyhow::Result<()> {
    if format == Format::Table {
        let cut = columns().map_or(line.len(), |columns| columns.min(line.len()));
        let cut = (0..=cut)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        writeln!(std::io::stdout().lock(), "{}", &line[..cut])?;
    }
    Ok(())
}

fn finish(
    count: usize,
    refused: &[Trouble],
    late: &[Trouble],
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            let one =
                |t: &Trouble| json!({"object": t.what, "reason": t.reason, "message": t.message});
            let all = |troubles: &[Trouble]| troubles.iter().map(one).collect::<Vec<Value>>();
            let value = json!({
                "apiVersion": "cli.jiuzhou.io/v1", "kind": "Applied",
                "applied": count, "notApplied": all(refused), "notReady": all(late),
            });
            writeln!(out, "{value:#}")?;
        }
        Format::Table => {
            let paint = Paint::stdout();
            for trouble in refused.iter().chain(late) {
                let what = paint.bad(&trouble.what);
                writeln!(out, "{what}: {}: {}", trouble.reason, trouble.message)?;
            }
            let refused = match refused.len() {
                0 => String::new(),
                refused => format!(", {refused} not applied"),
            };
            let all = number(count, "object");
            writeln!(out, "{all} applied, {} not Ready{refused}", late.len())?;
        }
    }
    Ok(if refused.is_empty() && late.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, namespace: &str, name: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
        }))
        .unwrap()
    }

    #[test]
    fn fields_of_kubectl_apply_are_taken_over_and_those_of_anybody_else_are_not() {
        let conflict = |managers: &[&str]| -> Status {
            let cause = |manager: &&str| {
                json!({
                    "reason": "FieldManagerConflict", "field": ".spec.to.ports",
                    "message": format!("conflict with \"{manager}\" using jiuzhou.io/v1alpha1"),
                })
            };
            let causes: Vec<Value> = managers.iter().map(cause).collect();
            serde_json::from_value(json!({
                "status": "Failure", "code": 409, "reason": "Conflict", "message": "Apply failed",
                "details": {"causes": causes},
            }))
            .unwrap()
        };
        assert!(is_of_kubectl(&conflict(&["kubectl-client-side-apply"])));
        assert!(is_of_kubectl(&conflict(&["kubectl"])), "server-side");
        assert!(!is_of_kubectl(&conflict(&["kubectl-edit"])), "by hand");
        assert!(!is_of_kubectl(&conflict(&[
            "kubectl-client-side-apply",
            "argocd"
        ])));
        assert!(!is_of_kubectl(&conflict(&[])), "it may be of another kind");
    }

    #[test]
    fn a_namespace_comes_with_itself_and_with_its_tenant() {
        let comes = |kind, home, name| brings(&object(kind, home, name));
        assert_eq!(comes("Namespace", "", "health"), Some("health".into()));
        let first = comes("Tenant", "jiuzhou-system", "health");
        assert_eq!(first, Some("health".into()));
        let inner = comes("Tenant", "health", "inner");
        assert_eq!(inner, Some("health-inner".into()));
        assert_eq!(comes("App", "health", "web"), None);
    }

    #[test]
    fn kinds_come_in_the_order_in_which_they_need_each_other() {
        let mut all = [
            object("Link", "health", "l"),
            object("App", "health", "a"),
            object("Secret", "health", "s"),
            object("Tenant", "health", "inner"),
            object("Quota", "jiuzhou-system", "q"),
            object("Tenant", "jiuzhou-system", "health"),
            object("Namespace", "", "health"),
        ];
        all.sort_by_key(rank);
        let names: Vec<String> = all.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["health", "health", "inner", "q", "s", "a", "l"]);
    }
}
