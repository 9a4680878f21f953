//! Step: rollout. Which content each cluster of an App gets: waves, soak, approval, health gate,
//! automatic stop, rollback.
//!
//! ```text
//! wave 0 ──healthy──> soak ──> approval ──> wave 1 ──healthy──> … ──> complete
//!    └──unhealthy──> stopped, until the content changes
//! ```
//!
//! Waves govern changes: the first content of an App goes to all clusters together, and once all
//! run the same content there is nothing left to stop. Content that already runs healthily in some
//! cluster when it becomes the wanted one, and was once rolled out completely, is a rollback and goes
//! everywhere at once. A cluster that joins in the middle takes what its wave has.
//!
//! The App's status is the memory of its rollout. Nothing of a new content is sent out before that
//! memory is written: afterwards nobody could tell a proven content from a new one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crds::{
    ApprovalDecision, ContentHash, Reason, ReportState, RolloutState, RolloutStatus, Timestamp,
    WaveName,
};

use super::placement::At;
use super::regions::{Fleet, Reach, Wake};
use crate::report::Waiting;
use crate::world::{AppLedger, AppSlot, ValidApp, ValidWave, World};

/// Content of each cluster, and how far the rollout is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rolled {
    pub(crate) content: BTreeMap<At, ContentHash>,
    pub(crate) status: RolloutStatus,
    /// Wave of each cluster that a wave selects.
    pub(crate) waves: BTreeMap<At, WaveName>,
    /// What the rollout waits on.
    pub(crate) waiting: Option<Waiting>,
}

/// A cluster of the rollout, as ledger and reports have it.
struct Member {
    at: At,
    wave: usize,
    reachable: bool,
    /// Content it was last given.
    content: Option<ContentHash>,
    /// State it reported for exactly that decision.
    state: Option<ReportState>,
    /// Why, when it is not healthy.
    reason: Option<Reason>,
}

impl Member {
    fn runs(&self, content: &ContentHash) -> bool {
        self.content.as_ref() == Some(content)
    }

    fn healthy(&self) -> bool {
        matches!(
            self.state,
            Some(ReportState::Healthy | ReportState::Observed)
        )
    }

    fn broken(&self) -> bool {
        match self.state {
            Some(ReportState::Unhealthy) => true,
            Some(ReportState::Failed) => self.reason.is_none_or(is_refusal),
            Some(_) | None => false,
        }
    }
}

/// Whether a failure says something about the content itself. What passes by itself, as content
/// that is not there yet or an API server that does not answer, makes a wave wait and never stops
/// it, since a stop lasts until the content changes.
fn is_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Rejected
            | Reason::Invalid
            | Reason::InvalidPatch
            | Reason::KindNotAllowed
            | Reason::NamespaceNotAllowed
            | Reason::DuplicateManifest
            | Reason::WorkloadAmbiguous
            | Reason::TooLarge
            | Reason::CRDMissing
            | Reason::Forbidden
            | Reason::NotManaged
            | Reason::OwnedByOther
            | Reason::Conflict
            | Reason::Unhealthy
    )
}

/// Decides the content of every target of an App.
pub(crate) fn roll(
    world: &World,
    fleet: &Fleet,
    slot: &AppSlot,
    app: &ValidApp,
    targets: &[At],
    wake: &mut Wake,
) -> Rolled {
    let ledger = world.ledger(&slot.uid);
    let last = slot.status.rollout.as_ref();
    let memory = last.filter(|m| m.content_hash == app.content);
    let waves = waves(app, memory);
    let members: Vec<Member> = targets
        .iter()
        .map(|at| member(fleet, &waves, ledger, *at))
        .collect();
    let rollback = memory.map_or_else(|| is_rollback(slot, app, &members), |m| m.rollback);
    let outdated = members
        .iter()
        .any(|m| m.content.is_some() && !m.runs(&app.content));
    let under_way = outdated || memory.is_some_and(|m| m.wave.is_some());
    let progress = if waves.is_empty() || rollback || !under_way {
        all_at_once(app, &members, memory)
    } else {
        Walk {
            world,
            slot,
            app,
            waves: &waves,
            members: &members,
            memory,
            outdated,
        }
        .go(wake)
    };
    let content = members
        .iter()
        .map(|m| (m.at, content_of(app, m, &members, progress.open)))
        .collect();
    let unchanged = memory
        .filter(|m| m.state == progress.state && m.wave == progress.wave && m.rollback == rollback);
    let since = unchanged.map_or(Timestamp::from_millis(world.now), |m| m.since);
    let kept = progress.wave.as_ref().map_or(&[][..], |_| &waves[..]);
    let kept = kept.iter().map(ValidWave::declared).collect();
    let status = RolloutStatus {
        content_hash: app.content.clone(),
        wave: progress.wave,
        state: progress.state,
        rollback,
        proven: if progress.state == RolloutState::Complete && !members.is_empty() {
            Some(app.content.clone())
        } else {
            last.and_then(proven_before).cloned()
        },
        waves: kept,
        since,
    };
    let wave_of = |m: &Member| Some((m.at, waves.get(m.wave)?.name.clone()));
    let waves = members.iter().filter_map(wave_of).collect();
    Rolled {
        content,
        status,
        waves,
        waiting: progress.waiting,
    }
}

/// The waves that count: a rollout keeps those it began with until it is complete, so that an edit
/// of the spec opens no gate for content that waits before it.
fn waves<'a>(app: &'a ValidApp, memory: Option<&RolloutStatus>) -> Cow<'a, [ValidWave]> {
    let kept = memory.map(|m| m.waves.as_slice()).unwrap_or_default();
    let kept: Vec<ValidWave> = kept.iter().filter_map(ValidWave::of).collect();
    if kept.is_empty() {
        Cow::Borrowed(&app.waves)
    } else {
        Cow::Owned(kept)
    }
}

/// The content that was last rolled out completely. A status of an earlier version says so only
/// while that is the wanted one.
fn proven_before(memory: &RolloutStatus) -> Option<&ContentHash> {
    let complete = memory.state == RolloutState::Complete;
    let current = complete.then_some(&memory.content_hash);
    memory.proven.as_ref().or(current)
}

/// How far the waves are open, and what the status says.
struct Progress {
    /// Waves up to and without this one may have the new content.
    open: usize,
    wave: Option<WaveName>,
    state: RolloutState,
    waiting: Option<Waiting>,
}

fn member(fleet: &Fleet, waves: &[ValidWave], ledger: Option<&AppLedger>, at: At) -> Member {
    let view = &fleet.clusters[at];
    let region = fleet.region_of(view);
    let selects = |wave: &ValidWave| match (&wave.regions, region) {
        (None, _) => true,
        (Some(selector), Some(region)) => fleet.selects(selector, region),
        (Some(_), None) => false,
    };
    let wave = waves.iter().position(selects).unwrap_or(waves.len());
    let entry = ledger
        .and_then(|l| l.entries.get(&view.name))
        .filter(|e| e.entry.state.is_present());
    let report = ledger.and_then(|l| l.reports.get(&view.name));
    let current = entry
        .zip(report)
        .filter(|(e, r)| r.generation >= e.entry.generation);
    Member {
        at,
        wave,
        reachable: view.reach == Reach::InContact,
        content: entry
            .map(|e| e.entry.content.clone())
            .or_else(|| report?.content.clone()),
        state: current.map(|(_, r)| r.state),
        reason: current.and_then(|(_, r)| r.reason),
    }
}

/// The wanted content is proven when it was once rolled out completely and some cluster runs it
/// healthily before it is wanted again. One that merely ran in the first waves is not.
fn is_rollback(slot: &AppSlot, app: &ValidApp, members: &[Member]) -> bool {
    let back = slot
        .status
        .rollout
        .as_ref()
        .filter(|m| m.content_hash != app.content)
        .and_then(proven_before)
        .is_some_and(|proven| *proven == app.content);
    back && members.iter().any(|m| m.runs(&app.content) && m.healthy())
}

/// Complete once all that can answer are well; from then on only a change of content, or a cluster
/// without it, starts anything.
fn all_at_once(app: &ValidApp, members: &[Member], memory: Option<&RolloutStatus>) -> Progress {
    let completed = memory.is_some_and(|m| m.state == RolloutState::Complete);
    let runs = members.iter().all(|m| m.runs(&app.content));
    let state = if completed && runs || members.is_empty() || proven(app, members) {
        RolloutState::Complete
    } else {
        RolloutState::InProgress
    };
    Progress {
        open: usize::MAX,
        wave: None,
        state,
        waiting: None,
    }
}

/// Whether a content is well in some of these clusters, and in all that can answer.
fn proven<'m>(app: &ValidApp, members: impl IntoIterator<Item = &'m Member>) -> bool {
    let mut somewhere = false;
    let everywhere = members.into_iter().all(|m| {
        let well = m.runs(&app.content) && m.healthy();
        somewhere |= well;
        well || !m.reachable
    });
    everywhere && somewhere
}

/// The way through the waves.
struct Walk<'a> {
    world: &'a World,
    slot: &'a AppSlot,
    app: &'a ValidApp,
    waves: &'a [ValidWave],
    members: &'a [Member],
    memory: Option<&'a RolloutStatus>,
    /// Whether some cluster still runs another content.
    outdated: bool,
}

impl Walk<'_> {
    /// Goes through the waves to the first that is not done.
    fn go(&self, wake: &mut Wake) -> Progress {
        let waves: BTreeSet<usize> = self.members.iter().map(|m| m.wave).collect();
        let Some(written) = self.memory else {
            let first = waves.first().copied().unwrap_or(0);
            let waiting = Waiting::Wave {
                wave: self.label(first),
            };
            return self.at(first, 0, RolloutState::InProgress, waiting);
        };
        if let Some(stopped) = self.stopped(written) {
            return stopped;
        }
        for at in waves {
            if let Some(waits) = self.held_before(at, wake) {
                return waits;
            }
            let done = proven(self.app, self.of(at));
            if !done {
                let waiting = Waiting::Wave {
                    wave: self.label(at),
                };
                return self.at(at, at + 1, RolloutState::InProgress, waiting);
            }
            if let Some(soaking) = self.soaking(at, written, wake) {
                return soaking;
            }
        }
        Progress {
            open: usize::MAX,
            wave: None,
            state: RolloutState::Complete,
            waiting: None,
        }
    }

    fn at(&self, wave: usize, open: usize, state: RolloutState, waiting: Waiting) -> Progress {
        Progress {
            open,
            wave: Some(self.label(wave)),
            state,
            waiting: Some(waiting),
        }
    }

    fn label(&self, wave: usize) -> WaveName {
        self.waves
            .get(wave)
            .map_or_else(|| WaveName::from("rest"), |w| w.name.clone())
    }

    fn of(&self, wave: usize) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |m| m.wave == wave)
    }

    fn started(&self, wave: usize) -> bool {
        self.of(wave).any(|m| m.runs(&self.app.content))
    }

    /// The wave that broke, now or earlier: then nothing goes on until the content changes. With
    /// no cluster left on another content there is nothing to stop.
    fn stopped(&self, memory: &RolloutStatus) -> Option<Progress> {
        if !self.outdated {
            return None;
        }
        let broken = self
            .members
            .iter()
            .filter(|m| m.runs(&self.app.content) && m.broken());
        let label = match (memory.state, &memory.wave) {
            (RolloutState::Stopped, Some(wave)) => wave.clone(),
            _ => self.label(broken.map(|m| m.wave).min()?),
        };
        let waiting = Some(Waiting::Stopped {
            wave: label.clone(),
        });
        // What was not sent out by now stays where it is.
        Some(Progress {
            open: 0,
            wave: Some(label),
            state: RolloutState::Stopped,
            waiting,
        })
    }

    /// Waits before a wave that needs an Approval and has not started.
    fn held_before(&self, at: usize, wake: &mut Wake) -> Option<Progress> {
        let needed = self.waves.get(at).is_some_and(|w| w.needs_approval);
        let label = self.label(at);
        if !needed || self.started(at) || approved(self.world, self.slot, self.app, &label, wake) {
            return None;
        }
        let waiting = Waiting::Approval { wave: label };
        Some(self.at(at, at, RolloutState::WaitingForApproval, waiting))
    }

    /// The soak time of a wave that is done, unless the next one has started.
    fn soaking(&self, at: usize, memory: &RolloutStatus, wake: &mut Wake) -> Option<Progress> {
        let soak = self.waves.get(at).map_or(0, |w| w.soak);
        let later = |m: &&Member| m.wave > at;
        let last = !self.members.iter().any(|m| later(&m));
        let next_started = self
            .members
            .iter()
            .any(|m| later(&m) && m.runs(&self.app.content));
        // Waiting for an Approval of the next wave comes after the soak; it need not soak again.
        let waited = memory.state == RolloutState::WaitingForApproval;
        if soak == 0 || last || next_started || waited {
            return None;
        }
        let label = self.label(at);
        let soaking = memory.state == RolloutState::Soaking && memory.wave.as_ref() == Some(&label);
        let begin = if soaking {
            memory.since
        } else {
            Timestamp::from_millis(self.world.now)
        };
        let until = begin.millis() + soak;
        if soaking && self.world.now >= until {
            return None;
        }
        wake.at(until);
        let waiting = Waiting::Soak { wave: label, until };
        Some(self.at(at, at + 1, RolloutState::Soaking, waiting))
    }
}

/// Whether a valid Approval of exactly this content and step exists. The authors of the change must
/// be known and its approver none of them; that the approver is who created it was checked at admission.
fn approved(
    world: &World,
    slot: &AppSlot,
    app: &ValidApp,
    step: &WaveName,
    wake: &mut Wake,
) -> bool {
    let mut yes = false;
    for approval in world.approvals_in(&slot.namespace) {
        let spec = &approval.spec;
        let fits = spec.target.kind == "App"
            && spec.target.name == slot.name.as_str()
            && spec.step == step.as_str()
            && spec.content_hash == app.content
            && spec.expires.millis() > world.now;
        if !fits {
            continue;
        }
        wake.at(spec.expires.millis());
        if spec.decision == ApprovalDecision::Reject {
            return false;
        }
        let mut authors = slot.authors().into_iter().flatten();
        yes |= slot.authors().is_some() && authors.all(|author| author != spec.approver);
    }
    yes
}

/// The content of one cluster: the new one once its wave is open, else what it has, else what its
/// companions have.
fn content_of(app: &ValidApp, member: &Member, members: &[Member], open: usize) -> ContentHash {
    if member.wave < open || member.runs(&app.content) {
        return app.content.clone();
    }
    let before = |m: &&Member| m.content.is_some() && !m.runs(&app.content);
    let companion = members
        .iter()
        .filter(before)
        .min_by_key(|m| (m.wave != member.wave, m.at));
    member
        .content
        .clone()
        .or_else(|| companion.and_then(|m| m.content.clone()))
        .unwrap_or_else(|| app.content.clone())
}
