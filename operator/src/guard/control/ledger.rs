//! How much of every shared limit each guard may be using, and how parts move between guards.
//!
//! ```text
//! report (what it uses) ─> may use = that ─┐
//!                                          ├─ target by demand ─┬─ less: at once
//! all others: what each may use ───────────┘                    └─ more: of what nobody may use
//! answer (what it gets) <─ may use = the larger of both, until the next report
//! ```
//!
//! So whatever is lost on the way, all together never may use more than the whole: a guard that is to
//! have more gets it when those that are to have less said that they do, or when their leases ran out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shield::Share;

use super::shares::apportion;
use crate::guard::exchange::{Answer, ByRule, GUARDS_MAX, LEASE, Report};

/// Silent for longer, a guard's demand is not known: 13 exchanges were missed. What it may use stays.
const LIVE: Duration = Duration::from_secs(2);
/// A new leader gives nobody more before this, in which every guard that lives finds it: a guard tries
/// again at least every two seconds.
const LEARNING_MIN: Duration = Duration::from_secs(3);
/// A part that differs from what it should be by less than a fiftieth of an even one stays.
const STEADY_DIVISOR: u32 = 50;
/// Times over which demand is averaged, in milliseconds: it follows a rise in a second, and forgets it in
/// ten, so that a part does not leave between two waves.
const AVERAGES: [u64; 2] = [1_000, 10_000];

/// Runs of one name that are known to be over. Two guards that were given one name are one of them, and a pod
/// that is started again and again under its name leaves one with each start, of which no report is under way
/// any more when the sixteenth begins.
const FORMER_MAX: usize = 16;

/// A limit that guards hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The policy and the rule.
    pub(super) key: (String, String),
    /// Thousandths of a request per second.
    pub(super) rate: u64,
    /// Whether each key is counted apart: then nobody knows who asks for how much, and all have the same.
    pub(super) is_keyed: bool,
}

/// What each guard may be using.
#[derive(Debug)]
pub(super) struct Ledger {
    begun: Duration,
    /// How many guards one expects that never heard of control.
    replicas: u32,
    members: BTreeMap<String, Member>,
    /// Those that take requests, as the cluster knows it; whether or not control hears them.
    standing: BTreeSet<String>,
}

#[derive(Debug)]
struct Member {
    session: u64,
    /// Runs whose place this one took.
    former: VecDeque<u64>,
    /// Whether one of those was heard afterwards.
    is_doubled: bool,
    sequence: u64,
    heard: Duration,
    /// What it uses of what it was told nothing about, or nothing for too long.
    fallback: Share,
    parts: BTreeMap<(String, String), Part>,
}

#[derive(Debug, Default)]
struct Part {
    offered: u64,
    /// Thousandths of a request per second, over each of [`AVERAGES`].
    flow: [u64; 2],
    may_use: Share,
}

/// A report that counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// A later one of the same run was heard before it.
    Overtaken,
    /// It is of a run whose place another one of the same name took.
    Superseded {
        /// Whether that was not seen of this name before.
        is_first: bool,
    },
    /// There are as many guards as may be, and it is none of them.
    TooMany,
}

impl Ledger {
    /// Knows nobody.
    pub(super) fn new(replicas: u32, now: Duration) -> Self {
        Self {
            begun: now,
            replicas,
            members: BTreeMap::new(),
            standing: BTreeSet::new(),
        }
    }

    /// These guards take requests, as far as the cluster knows.
    pub(super) fn stand(&mut self, standing: BTreeSet<String>) {
        self.standing = standing;
    }

    /// A guard took its last request.
    pub(super) fn leave(&mut self, guard: &str) {
        self.members.remove(guard);
    }

    /// Hears a report and decides what its guard gets.
    pub(super) fn exchange(
        &mut self,
        limits: &[Limit],
        report: &Report,
        now: Duration,
    ) -> Result<Answer, Late> {
        self.hear(limits, report, now)?;
        self.expire(now);
        let count = self.count();
        let fallback = Share::one_of(count);
        let mut shares: ByRule<Share> = BTreeMap::new();
        for limit in limits {
            let share = self.decide(limit, &report.guard, now);
            if let Some(member) = self.members.get_mut(&report.guard) {
                let part = member.parts.entry(limit.key.clone()).or_default();
                // The answer may be lost, or may not.
                part.may_use = part.may_use.max(share);
            }
            let (policy, rule) = limit.key.clone();
            shares.entry(policy).or_default().insert(rule, share);
        }
        if let Some(member) = self.members.get_mut(&report.guard) {
            member.fallback = fallback;
        }
        Ok(Answer {
            guards: count,
            shares,
            ..Answer::default()
        })
    }

    /// How many guards hold limits together.
    fn count(&self) -> u32 {
        let unheard = self
            .standing
            .iter()
            .filter(|name| !self.members.contains_key(*name));
        u32::try_from(self.members.len() + unheard.count()).unwrap_or(u32::MAX)
    }

    fn hear(&mut self, limits: &[Limit], report: &Report, now: Duration) -> Result<(), Late> {
        // Before anything is kept of it: a report that counts for nothing makes nobody a guard.
        if !self.members.contains_key(&report.guard) {
            if report.sequence == 0 {
                return Err(Late::Overtaken);
            }
            if self.members.len() >= GUARDS_MAX {
                self.expire(now);
            }
            if self.members.len() >= GUARDS_MAX {
                return Err(Late::TooMany);
            }
        }
        let member = self
            .members
            .entry(report.guard.clone())
            .or_insert_with(|| Member {
                session: report.session,
                former: VecDeque::new(),
                is_doubled: false,
                sequence: 0,
                heard: now,
                fallback: Share::one_of(self.replicas),
                parts: BTreeMap::new(),
            });
        member.follow(report.session, now)?;
        if report.sequence <= member.sequence {
            return Err(Late::Overtaken);
        }
        let passed = now.saturating_sub(member.heard);
        member.sequence = report.sequence;
        member.heard = now;
        let mut parts = std::mem::take(&mut member.parts);
        for limit in limits {
            let known = parts.remove(&limit.key);
            let is_new = known.is_none();
            let mut part = known.unwrap_or_default();
            let (policy, rule) = &limit.key;
            let said = report.demand.get(policy).and_then(|rules| rules.get(rule));
            part.may_use = match said {
                Some(said) => {
                    let came = said.offered.checked_sub(part.offered);
                    part.offered = said.offered;
                    // What came before it was known says nothing of how much comes now.
                    part.flow(if is_new { 0 } else { came.unwrap_or(0) }, passed);
                    said.share
                }
                None if report.revision.is_empty() => Share::NONE,
                None if limit.is_keyed => Share::WHOLE,
                None => member.fallback,
            };
            member.parts.insert(limit.key.clone(), part);
        }
        Ok(())
    }

    /// A lease that ran out gives back what it held: all of it, or all but what a guard goes on with that
    /// is there and hears nothing.
    fn expire(&mut self, now: Duration) {
        let standing = &self.standing;
        self.members.retain(|name, member| {
            let is_leased = now.saturating_sub(member.heard) <= LEASE;
            if !is_leased {
                for part in member.parts.values_mut() {
                    part.may_use = member.fallback;
                }
            }
            is_leased || standing.contains(name)
        });
    }

    fn decide(&self, limit: &Limit, guard: &str, now: Duration) -> Share {
        let may_use = |member: &Member| {
            let part = member.parts.get(&limit.key);
            part.map_or(Share::NONE, |part| part.may_use)
        };
        let mine = self.members.get(guard).map_or(Share::NONE, may_use);
        let others = self.members.iter().filter(|(name, _)| *name != guard);
        let unheard = self
            .standing
            .iter()
            .filter(|name| !self.members.contains_key(*name));
        let strangers = unheard.fold(Share::NONE, |sum, _| sum.plus(Share::one_of(self.replicas)));
        let taken = others.fold(strangers, |sum, (_, other)| sum.plus(may_use(other)));
        let free = Share::WHOLE.minus(taken);
        if self.is_learning(now) {
            return mine;
        }
        let target = self.target(limit, guard, strangers, now);
        let steady =
            Share::millionths(Share::one_of(self.count()).as_millionths() / STEADY_DIVISOR);
        let is_near = target.minus(mine) <= steady && mine.minus(target) <= steady;
        if is_near && mine > Share::NONE && mine <= free {
            mine
        } else if target <= mine {
            target
        } else {
            target.min(mine.max(free))
        }
    }

    /// What a guard is to have in the end.
    fn target(&self, limit: &Limit, guard: &str, strangers: Share, now: Duration) -> Share {
        let is_live = |member: &Member| now.saturating_sub(member.heard) <= LIVE;
        let silent = self.members.values().filter(|member| !is_live(member));
        let kept = silent.fold(strangers, |sum, member| {
            let part = member.parts.get(&limit.key);
            sum.plus(part.map_or(Share::NONE, |part| part.may_use))
        });
        // Where more are silent than there should be, nobody can know what they use; those that are
        // heard are as good as they.
        let available = Share::WHOLE.minus(kept).max(Share::one_of(self.count()));
        let live = self.members.iter().filter(|(_, member)| is_live(member));
        let mut at = None;
        let mut demands = Vec::new();
        for (number, (name, member)) in live.enumerate() {
            if name == guard {
                at = Some(number);
            }
            let part = member.parts.get(&limit.key).filter(|_| !limit.is_keyed);
            demands.push(part.map_or(0, Part::demand));
        }
        let rate = scaled(limit.rate, available);
        let shares = apportion(rate, &demands);
        let share = at.and_then(|at| shares.get(at)).copied();
        let share = u64::from(share.unwrap_or_default().as_millionths());
        Share::millionths(u32::try_from(scaled(share, available)).unwrap_or(u32::MAX))
    }

    /// Whether a predecessor may have given parts to guards that were not heard yet. Who is in no slice of
    /// the guards' Service gets no requests from it.
    fn is_learning(&self, now: Duration) -> bool {
        let since = now.saturating_sub(self.begun);
        let all_heard = self
            .standing
            .iter()
            .all(|name| self.members.contains_key(name));
        since < LEARNING_MIN || (since < LEASE && !all_heard)
    }
}

impl Member {
    /// Goes on with the run that reports. One whose place was taken does not get it back while the other is
    /// heard: two guards that have one name by mistake would each be given what is meant for one.
    fn follow(&mut self, session: u64, now: Duration) -> Result<(), Late> {
        if self.session == session {
            return Ok(());
        }
        let is_held = now.saturating_sub(self.heard) <= LEASE;
        if is_held && self.former.contains(&session) {
            let is_first = !std::mem::replace(&mut self.is_doubled, true);
            return Err(Late::Superseded { is_first });
        }
        if self.former.len() == FORMER_MAX {
            self.former.pop_front();
        }
        self.former.push_back(self.session);
        self.former.retain(|former| *former != session);
        self.session = session;
        self.sequence = 0;
        self.parts.clear();
        Ok(())
    }
}

impl Part {
    /// Takes in what came over a time.
    fn flow(&mut self, came: u64, passed: Duration) {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        // In thousandths of a request per second, times milliseconds.
        let amount = came.saturating_mul(1_000_000);
        for (flow, over) in self.flow.iter_mut().zip(AVERAGES) {
            *flow = if passed >= over {
                amount / passed
            } else {
                flow.saturating_mul(over - passed).saturating_add(amount) / over
            };
        }
    }

    fn demand(&self) -> u64 {
        self.flow.iter().copied().max().unwrap_or_default()
    }
}

fn scaled(number: u64, share: Share) -> u64 {
    let scaled = u128::from(number) * u128::from(share.as_millionths())
        / u128::from(Share::WHOLE.as_millionths());
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
