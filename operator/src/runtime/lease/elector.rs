//! The task that takes, renews and gives up the Lease.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Decision, Fence, Held, LeaseError, Observed, Timing, decide,
    leadership::{Election, Leadership},
};

/// A candidate for the Lease.
pub struct Elector {
    leases: Api<Lease>,
    fence: Fence,
    name: String,
    me: String,
    timing: Timing,
    leader: watch::Sender<Option<Leadership>>,
}

/// A term while it is held: what renewing needs.
struct Term {
    lease: Lease,
    valid_until: watch::Sender<Instant>,
    lost: CancellationToken,
}

impl Drop for Term {
    fn drop(&mut self) {
        // However the term ends, also by a panic, nobody goes on writing under it.
        self.lost.cancel();
    }
}

impl Elector {
    /// A candidate named `me`, which no other process may use, also not a later one on the same
    /// machine. Lease and fence live in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: impl Into<String>,
        me: impl Into<String>,
        timing: Timing,
    ) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            fence: Fence::new(client, namespace),
            name: name.into(),
            me: me.into(),
            timing,
            leader: watch::Sender::new(None),
        }
    }

    /// Runs on its own task: nothing a loop does can delay a renewal.
    pub fn start(self) -> Election {
        let leader = self.leader.subscribe();
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.run(stop.clone()));
        Election { leader, stop, task }
    }

    async fn run(self, stop: CancellationToken) {
        let mut observed = Observed::new(None, Instant::now());
        loop {
            let taken = stop.run_until_cancelled(self.campaign(&mut observed)).await;
            let Some(mut term) = taken else { break };
            let lost = term.lost.clone();
            let lead = Box::pin(lost.run_until_cancelled(self.lead(&mut term)));
            let ended = stop.run_until_cancelled(lead).await;
            // In this order: first nobody here believes in the term, then others may learn of it.
            term.lost.cancel();
            self.leader.send_replace(None);
            if ended.is_none() {
                self.give_up(term.lease.clone()).await;
                break;
            }
        }
        tracing::info!(lease = self.name, "left the election");
    }

    /// Waits for the Lease and takes it.
    async fn campaign(&self, observed: &mut Observed) -> Term {
        loop {
            let pause = match self.try_to_lead(observed).await {
                Ok(Ok(term)) => return term,
                Ok(Err(until)) => self
                    .timing
                    .retry_every
                    .min(until.duration_since(Instant::now())),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, lease = self.name, "election step failed");
                    self.timing.retry_every
                }
            };
            // Replicas that started together should not ask in step for ever.
            sleep(pause.mul_f64(1.0 - 0.2 * crate::runtime::backoff::random_unit())).await;
        }
    }

    /// One look at the Lease: our term, or when to look again.
    async fn try_to_lead(
        &self,
        observed: &mut Observed,
    ) -> Result<Result<Term, Instant>, LeaseError> {
        let found = self.in_time(self.leases.get_opt(&self.name), read).await?;
        let now = Instant::now();
        observed.see(found.as_ref().map(held), now);
        match decide(observed, &self.me, self.timing.duration, now) {
            Decision::StandBy { until } => Ok(Err(until)),
            // Ours without a term: taken a moment ago and then something failed.
            Decision::Acquire | Decision::Renew => self.take(found).await.map(Ok),
        }
    }

    async fn take(&self, found: Option<Lease>) -> Result<Term, LeaseError> {
        let sent = Instant::now();
        let valid_until = sent + self.timing.renew_deadline;
        // A predecessor that gave the Lease up has ended its writes, and one that fell silent may
        // wake up at any time. Against the former the fence can wait for our own first write.
        let given_up = found
            .as_ref()
            .is_some_and(|found| held(found).holder.is_empty());
        let lease = self.write(self.taken(found)).await?;
        let number = async {
            if given_up {
                self.fence.next().await
            } else {
                self.fence.raise().await
            }
        };
        let fenced = timeout_at(valid_until, number).await;
        let epoch = match fenced {
            Ok(epoch) => epoch?,
            Err(_) => return Err(self.slow(self.timing.renew_deadline)),
        };
        let (until, valid_until) = watch::channel(valid_until);
        let lost = CancellationToken::new();
        let leadership = Leadership {
            epoch,
            unraised: given_up.then(|| self.fence.clone()),
            raised: std::sync::Arc::default(),
            valid_until,
            lost: lost.clone(),
        };
        tracing::info!(lease = self.name, epoch, "leading");
        self.leader.send_replace(Some(leadership));
        Ok(Term {
            lease,
            valid_until: until,
            lost,
        })
    }

    /// Renews until it no longer succeeds in time.
    async fn lead(&self, term: &mut Term) {
        let mut next =
            *term.valid_until.borrow() - self.timing.renew_deadline + self.timing.renew_every;
        loop {
            let deadline = *term.valid_until.borrow();
            sleep_until(next.min(deadline)).await;
            let sent = Instant::now();
            let renewed = timeout_at(deadline, self.renew(term.lease.clone())).await;
            // A renewal that arrives after the deadline is one that others need not have seen.
            let renewed = renewed.ok().filter(|_| Instant::now() < deadline);
            match renewed {
                Some(Ok(Some(lease))) => {
                    term.lease = lease;
                    term.valid_until
                        .send_replace(sent + self.timing.renew_deadline);
                    next = sent + self.timing.renew_every;
                }
                Some(Ok(None)) => {
                    tracing::warn!(lease = self.name, "another replica took the lease");
                    return;
                }
                Some(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, lease = self.name, "lease not renewed yet");
                    next = Instant::now() + self.timing.retry_every;
                }
                None => {
                    tracing::error!(lease = self.name, "lease not renewed in time");
                    return;
                }
            }
        }
    }

    /// The renewed Lease, or `None` if it is somebody else's by now.
    async fn renew(&self, lease: Lease) -> Result<Option<Lease>, LeaseError> {
        match self.write(self.renewed(lease)).await {
            Ok(lease) => Ok(Some(lease)),
            Err(LeaseError::Write { source, .. }) if is_conflict(&source) => {
                // Perhaps our own write, whose answer was lost, or somebody's annotation.
                let found = self.in_time(self.leases.get_opt(&self.name), read).await?;
                let Some(ours) = found.filter(|found| held(found).holder == self.me) else {
                    return Ok(None);
                };
                self.write(self.renewed(ours)).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn give_up(&self, mut lease: Lease) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        // A renewal still on its way conflicts with this one or the other way round; in the worst
        // case the others wait as they would for a dead leader.
        match self.write(lease).await {
            Ok(_) => tracing::info!(lease = self.name, "lease given up"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    lease = self.name,
                    "lease not given up, it will run out"
                );
            }
        }
    }

    fn taken(&self, found: Option<Lease>) -> Lease {
        let mut lease = found.unwrap_or_else(|| {
            let name = Some(self.name.clone());
            Lease {
                metadata: ObjectMeta {
                    name,
                    ..ObjectMeta::default()
                },
                spec: None,
            }
        });
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.holder_identity = Some(self.me.clone());
        spec.acquire_time = Some(MicroTime(jiff::Timestamp::now()));
        self.renewed(lease)
    }

    fn renewed(&self, mut lease: Lease) -> Lease {
        let seconds = i32::try_from(self.timing.duration.as_secs())
            .unwrap_or(i32::MAX)
            .max(1);
        let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        spec.lease_duration_seconds = Some(seconds);
        lease
    }

    /// Creates or replaces; either way somebody else's write in between is a conflict.
    async fn write(&self, lease: Lease) -> Result<Lease, LeaseError> {
        let parameters = PostParams::default();
        if lease.metadata.resource_version.is_some() {
            self.in_time(self.leases.replace(&self.name, &parameters, &lease), write)
                .await
        } else {
            self.in_time(self.leases.create(&parameters, &lease), write)
                .await
        }
    }

    /// One request gets as long as there is between two renewals: a second one must still fit.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
        failed: fn(&str, kube::Error) -> LeaseError,
    ) -> Result<T, LeaseError> {
        match timeout(self.timing.renew_every, request).await {
            Ok(answer) => answer.map_err(|error| failed(&self.name, error)),
            Err(_) => Err(self.slow(self.timing.renew_every)),
        }
    }

    fn slow(&self, after: Duration) -> LeaseError {
        LeaseError::Slow {
            name: self.name.clone(),
            after,
        }
    }
}

fn read(name: &str, error: kube::Error) -> LeaseError {
    LeaseError::Read {
        name: name.to_owned(),
        source: Box::new(error),
    }
}

fn write(name: &str, error: kube::Error) -> LeaseError {
    LeaseError::Write {
        name: name.to_owned(),
        source: Box::new(error),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn held(lease: &Lease) -> Held {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    Held {
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default(),
        renewed: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        duration: seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs),
    }
}
