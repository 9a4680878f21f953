//! Writing statuses: on a task of their own, after assignments, at most once a second per object,
//! and only what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{
    App, AppStatus, ClusterName, Isolation, IsolationStatus, Link, LinkStatus, MemberCluster,
    MemberClusterStatus, Quota, QuotaStatus, Region, RegionName, RegionStatus, Tenant,
    TenantStatus, TrafficPolicy, TrafficPolicyStatus, Uid,
};
use futures::{StreamExt as _, stream};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use plan::report::AppReport;
use plan::world::{LinkKey, PolicyKey, QuotaKey, TenantKey};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::prepare::MANAGER;
use crate::runtime::lease::Leadership;

/// Statuses written at a time: far fewer than assignments, which go first.
const CONCURRENCY: usize = 3;
/// Statuses taken at a time.
const BATCH: usize = 64;
/// Least time between two statuses of one object.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time that progress may wait for the next step: most Apps are done within it, and one write then
/// says what two would have.
const SETTLE: Duration = Duration::from_millis(700);
/// Time that progress waits longer for each status that waits as well. In a burst the API server
/// and the members have better things to do than to say of each App that it is on its way.
const CROWD: Duration = Duration::from_millis(50);
/// The longest that progress waits.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Time within which a written status comes back by the watch. What still differs then was changed
/// by somebody else, and is written again.
const ECHO: Duration = Duration::from_secs(5);
/// Pause after a status was not taken.
const RETRY: Duration = Duration::from_secs(5);

/// An object with a status. A name may be given to another object at any time, so all have their UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    // The fleet first: Apps by the thousand wait for what is decided by it.
    Region(RegionName, Uid),
    Cluster(ClusterName, Uid),
    Tenant(TenantKey, Uid),
    Quota(QuotaKey, Uid),
    Isolation(Box<str>, Uid),
    Link(LinkKey, Uid),
    Policy(PolicyKey, Uid),
    App(Uid),
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Status {
    App(Arc<AppReport>),
    Region(Box<RegionStatus>),
    Cluster(Box<MemberClusterStatus>),
    Tenant(Box<TenantStatus>),
    Quota(Box<QuotaStatus>),
    Isolation(Box<IsolationStatus>),
    Link(Box<LinkStatus>),
    Policy(Box<TrafficPolicyStatus>),
}

/// Statuses that wait to be written: one per object, the newest.
#[derive(Clone, Default)]
pub(super) struct Statuses {
    waiting: Arc<Mutex<Waiting>>,
    news: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    wanted: BTreeMap<Owner, Wanted>,
    /// Statuses written lately or on their way, and since when. The next turn asks again for all that
    /// has not come back yet.
    written: BTreeMap<Owner, (Status, Instant)>,
}

struct Wanted {
    status: Status,
    /// When it may be written.
    due: Instant,
    /// Whether somebody waits for it; otherwise it says only how far things are.
    urgent: bool,
}

impl Waiting {
    /// How much longer than due progress waits.
    fn patience(&self) -> Duration {
        let crowd = u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
        CROWD.saturating_mul(crowd).min(SETTLE_MAX)
    }

    fn waits_with(&self, owner: &Owner, status: &AppStatus) -> bool {
        self.wanted.get(owner).is_some_and(
            |wanted| matches!(&wanted.status, Status::App(waiting) if waiting.status == *status),
        )
    }

    fn want(&mut self, owner: Owner, status: Status, urgent: bool, now: Instant) {
        let lately = self.written.get(&owner);
        let again = lately.map_or(now, |(_, at)| *at + INTERVAL);
        let due = match lately {
            Some((written, at)) if *written == status => *at + ECHO,
            _ if urgent => again.max(now),
            _ => again.max(now + SETTLE),
        };
        let waits = self
            .wanted
            .get(&owner)
            .filter(|old| old.status == status || !urgent);
        // News do not push back what already waits, so that constant change is told as well.
        let due = waits.map_or(due, |old| old.due.min(due));
        self.wanted.insert(
            owner,
            Wanted {
                status,
                due,
                urgent,
            },
        );
    }

    /// Statuses to write now, and when to look again.
    fn take_due(&mut self, now: Instant) -> (Vec<(Owner, Status)>, Option<Instant>) {
        self.written.retain(|_, (_, at)| *at + ECHO > now);
        let patience = self.patience();
        let at = |wanted: &Wanted| {
            wanted.due
                + if wanted.urgent {
                    Duration::ZERO
                } else {
                    patience
                }
        };
        // The fleet before Apps, and of each who has waited longest beyond its time.
        let mut due: Vec<(bool, Instant, Owner)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| at(wanted) <= now)
            .map(|(owner, wanted)| (matches!(owner, Owner::App(_)), at(wanted), owner.clone()))
            .collect();
        due.sort_unstable();
        due.truncate(BATCH);
        let taken: Vec<(Owner, Status)> = due
            .into_iter()
            .map(|(_, _, owner)| owner)
            .filter_map(|owner| self.wanted.remove_entry(&owner))
            .map(|(owner, wanted)| (owner, wanted.status))
            .collect();
        for (owner, status) in &taken {
            self.written.insert(owner.clone(), (status.clone(), now));
        }
        (taken, self.wanted.values().map(at).min())
    }
}

impl Statuses {
    /// Asks for a status to be written, in place of any that still waits.
    pub(super) fn want(&self, owner: Owner, status: Status, urgent: bool) {
        self.lock().want(owner, status, urgent, Instant::now());
        self.news.notify_one();
    }

    /// Asks for the statuses of exactly these Apps; those of all others came back as written.
    pub(super) fn want_apps<'a>(
        &self,
        apps: &[Uid],
        report: impl Fn(&Uid) -> Option<&'a Arc<AppReport>>,
    ) {
        let now = Instant::now();
        let wanted: BTreeSet<&Uid> = apps.iter().collect();
        let mut waiting = self.lock();
        waiting.wanted.retain(|owner, _| match owner {
            Owner::App(uid) => wanted.contains(uid),
            Owner::Region(..)
            | Owner::Cluster(..)
            | Owner::Tenant(..)
            | Owner::Quota(..)
            | Owner::Isolation(..)
            | Owner::Link(..)
            | Owner::Policy(..) => true,
        });
        for uid in apps {
            let owner = Owner::App(uid.clone());
            let Some(app) = report(uid) else { continue };
            if waiting.waits_with(&owner, &app.status) {
                continue;
            }
            // What somebody waits for is said at once; progress can wait for the next step.
            let done =
                crds::find_condition(&app.status.conditions, crds::ConditionType::Reconciling)
                    .is_none();
            waiting.want(owner, Status::App(app.clone()), done, now);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Forgets everything: another leader writes from now on.
    pub(super) fn clear(&self) {
        *self.lock() = Waiting::default();
    }

    /// Writes statuses as long as we lead.
    pub(super) async fn write(&self, client: &Client, leadership: &Leadership) {
        loop {
            let (due, next) = self.lock().take_due(Instant::now());
            if due.is_empty() {
                let pause = next.map_or(Duration::from_hours(1), |at| {
                    at.saturating_duration_since(Instant::now())
                });
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            let writes = due
                .into_iter()
                .map(|(owner, status)| self.one(client, leadership.epoch(), owner, status));
            stream::iter(writes)
                .buffer_unordered(CONCURRENCY)
                .for_each(|()| async {})
                .await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn one(&self, client: &Client, epoch: i64, owner: Owner, status: Status) {
        let result = write_one(client, epoch, &owner, &status).await;
        let mut waiting = self.lock();
        match result {
            Ok(()) => {
                waiting.written.insert(owner, (status, Instant::now()));
            }
            // The object is gone or another one of that name: nobody waits for this status.
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {
                waiting.written.remove(&owner);
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, ?owner, "status not written");
                waiting.written.remove(&owner);
                waiting.wanted.entry(owner).or_insert(Wanted {
                    status,
                    due: Instant::now() + RETRY,
                    urgent: false,
                });
            }
        }
    }
}

async fn write_one(
    client: &Client,
    epoch: i64,
    owner: &Owner,
    status: &Status,
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let mut body = match status {
        Status::App(app) => json!(app.status),
        Status::Region(status) => json!(status),
        Status::Cluster(status) => json!(status),
        Status::Tenant(status) => json!(status),
        Status::Quota(status) => json!(status),
        Status::Isolation(status) => json!(status),
        Status::Link(status) => json!(status),
        Status::Policy(status) => json!(status),
    };
    body["leaderEpoch"] = json!(epoch);
    let Some(place) = place(owner, status) else {
        return Ok(());
    };
    let mut metadata = json!({"name": place.name, "uid": place.uid});
    let api: Api<DynamicObject> = match place.namespace {
        Some(namespace) => {
            metadata["namespace"] = json!(namespace);
            Api::namespaced_with(client.clone(), namespace, &place.resource)
        }
        None => Api::all_with(client.clone(), &place.resource),
    };
    let patch = Patch::Apply(json!({
        "apiVersion": place.resource.api_version, "kind": place.resource.kind,
        "metadata": metadata, "status": body,
    }));
    api.patch_status(place.name, &params, &patch).await?;
    Ok(())
}

/// Where an object is.
struct Place<'a> {
    resource: ApiResource,
    namespace: Option<&'a str>,
    name: &'a str,
    uid: &'a Uid,
}

/// Where the object of a status is; `None` when the status is no App's, whose owner is one.
fn place<'a>(owner: &'a Owner, status: &'a Status) -> Option<Place<'a>> {
    let at = |resource, namespace, name, uid| Place {
        resource,
        namespace,
        name,
        uid,
    };
    Some(match owner {
        Owner::App(uid) => {
            let Status::App(app) = status else {
                return None;
            };
            let namespace = Some(app.namespace.as_str());
            at(
                ApiResource::erase::<App>(&()),
                namespace,
                app.name.as_str(),
                uid,
            )
        }
        Owner::Region(name, uid) => at(ApiResource::erase::<Region>(&()), None, name.as_str(), uid),
        Owner::Cluster(name, uid) => {
            let resource = ApiResource::erase::<MemberCluster>(&());
            at(resource, None, name.as_str(), uid)
        }
        Owner::Tenant((home, name), uid) => {
            let resource = ApiResource::erase::<Tenant>(&());
            at(resource, Some(home.as_str()), name.as_str(), uid)
        }
        Owner::Quota((home, name), uid) => at(
            ApiResource::erase::<Quota>(&()),
            Some(home.as_str()),
            name,
            uid,
        ),
        Owner::Isolation(name, uid) => at(ApiResource::erase::<Isolation>(&()), None, name, uid),
        Owner::Link((home, name), uid) => at(
            ApiResource::erase::<Link>(&()),
            Some(home.as_str()),
            name,
            uid,
        ),
        Owner::Policy((home, name), uid) => {
            let resource = ApiResource::erase::<TrafficPolicy>(&());
            at(resource, Some(home.as_str()), name, uid)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Owner {
        Owner::Region(RegionName::from(name.to_owned()), Uid::from("uid-1"))
    }

    fn status(generation: i64) -> Status {
        Status::Region(Box::new(RegionStatus {
            observed_generation: Some(generation),
            ..RegionStatus::default()
        }))
    }

    fn names(taken: &(Vec<(Owner, Status)>, Option<Instant>)) -> Vec<Status> {
        taken.0.iter().map(|(_, status)| status.clone()).collect()
    }

    #[test]
    fn progress_waits_for_what_comes_next_and_one_write_says_both() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.want(region("a"), status(1), false, now);
        assert!(waiting.take_due(now).0.is_empty());
        waiting.want(region("a"), status(2), true, now + SETTLE / 2);
        let taken = waiting.take_due(now + SETTLE / 2);
        assert_eq!(names(&taken), [status(2)]);
        assert_eq!(taken.1, None);
    }

    #[test]
    fn progress_is_told_although_it_never_rests() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let mut told = Vec::new();
        for step in 0..40 {
            let now = now + Duration::from_millis(100) * step;
            waiting.want(region("a"), status(step.into()), false, now);
            told.extend(waiting.take_due(now).0);
        }
        assert!(told.len() >= 3, "told {} times in 4 s", told.len());
    }

    #[test]
    fn the_more_wait_the_longer_progress_waits_and_what_is_done_does_not() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..1_000 {
            waiting.want(region(&format!("r-{n:04}")), status(1), false, now);
        }
        waiting.want(region("done"), status(2), true, now);
        let soon = now + SETTLE + Duration::from_secs(1);
        assert_eq!(names(&waiting.take_due(soon)), [status(2)]);
        let late = now + SETTLE + SETTLE_MAX;
        assert_eq!(waiting.take_due(late).0.len(), BATCH);
    }

    #[test]
    fn a_status_that_somebody_else_changed_is_written_again_but_an_echo_is_given_time() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.written.insert(region("a"), (status(1), now));
        waiting.want(region("a"), status(1), true, now);
        assert!(waiting.take_due(now + INTERVAL).0.is_empty());
        assert_eq!(names(&waiting.take_due(now + ECHO)), [status(1)]);
    }

    #[test]
    fn a_status_on_its_way_is_not_written_twice() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.want(region("a"), status(1), true, now);
        assert_eq!(names(&waiting.take_due(now)), [status(1)]);
        waiting.want(region("a"), status(1), true, now);
        assert!(waiting.take_due(now + INTERVAL).0.is_empty());
        waiting.want(region("a"), status(2), true, now);
        assert_eq!(names(&waiting.take_due(now + INTERVAL)), [status(2)]);
    }

    #[test]
    fn the_fleet_comes_before_apps_and_nobody_waits_for_ever() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let app = |n: usize| Owner::App(format!("{n:04}").into());
        waiting.want(app(BATCH), status(1), true, now);
        for n in 0..BATCH {
            waiting.want(app(n), status(1), true, now + INTERVAL);
        }
        waiting.want(region("z"), status(1), true, now + INTERVAL);
        let (taken, _) = waiting.take_due(now + INTERVAL);
        let first: Vec<&Owner> = taken.iter().take(2).map(|(owner, _)| owner).collect();
        assert_eq!(first, [&region("z"), &app(BATCH)]);
    }

    #[test]
    fn what_was_written_is_forgotten() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.written.insert(region("a"), (status(1), now));
        let _none = waiting.take_due(now + ECHO);
        assert!(waiting.written.is_empty());
    }
}
