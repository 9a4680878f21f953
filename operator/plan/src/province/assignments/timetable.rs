//! How many replicas an App has in a cluster, and when.

use crds::{ClusterName, Entry, Stage, Timestamp};

use super::Desk;
use crate::province::placement::{At, Load};
use crate::province::reclaim::Cut;
use crate::world::AppLedger;

impl Desk<'_> {
    /// The load now and, where replicas are taken back, fewer of them after the grace time. What was
    /// announced before keeps its time, and whatever goes beyond it gets one of its own.
    pub(super) fn timetable(&self, at: At, load: Load, cut: Option<&Cut>) -> Vec<Stage> {
        self.after_what_it_had(at, self.stages_from_now(at, load, cut))
    }

    fn stages_from_now(&self, at: At, load: Load, cut: Option<&Cut>) -> Vec<Stage> {
        let mut stages = load.stages();
        let Some(cut) = cut.filter(|cut| cut.then < load.count()) else {
            return stages;
        };
        let now = self.world.now;
        let later = |count: i32, at: Timestamp| {
            let stages = load.at_most(count).stages().into_iter();
            stages.map(move |stage| Stage {
                not_before: Some(at),
                ..stage
            })
        };
        if cut.now < load.count() {
            stages.extend(later(cut.now, Timestamp::from_millis(now)));
        }
        if cut.then == cut.now {
            return stages;
        }
        let held = self.held(at).map_or(&[][..], |held| &held.stages[..]);
        let ahead = held
            .iter()
            .filter(|stage| stage.not_before.is_some_and(|at| at.millis() > now));
        let mut time = Timestamp::from_millis(now + self.world.settings.reclaim_grace);
        for stage in ahead {
            let (count, begins) = (Load::of_stage(stage).count(), stage.not_before);
            if count <= cut.then {
                time = begins.unwrap_or(time);
                break;
            }
            if count < cut.now {
                stages.push(stage.clone());
            }
        }
        stages.extend(later(cut.then, time));
        stages
    }

    /// What a cluster was told to run and did not tell of yet may run there already. If it is to be fewer,
    /// that stays in the timetable as what is over now, so that nobody else gets its room before it ends.
    fn after_what_it_had(&self, at: At, mut stages: Vec<Stage>) -> Vec<Stage> {
        let cluster = &self.fleet.clusters[at].name;
        let held = self.held(at).filter(|held| held.state.is_present());
        let Some(held) = held.filter(|held| !heard(self.ledger, cluster, held)) else {
            return stages;
        };
        let now = self.world.now;
        let count = |stage: &Stage| Load::of_stage(stage).count();
        let ahead = Load::most_of_stages(&stages, now).count();
        let most = held.stages.iter().max_by_key(|stage| count(stage));
        let Some(most) = most.filter(|most| count(most) > ahead) else {
            return stages;
        };
        // It keeps the time at which that was over.
        let first = Load::of_stages(&stages, now);
        let mut begun = held.stages.iter().filter_map(|stage| {
            let at = stage.not_before.filter(|at| at.millis() <= now)?;
            (Load::of_stage(stage) == first).then_some(at)
        });
        let time = begun.next().unwrap_or(Timestamp::from_millis(now));
        if let Some(stage) = stages.first_mut() {
            stage.not_before = stage.not_before.or(Some(time));
        }
        let most = Stage {
            not_before: None,
            ..most.clone()
        };
        stages.insert(0, most);
        stages
    }
}

/// Whether a cluster told anything since it was given its entry.
fn heard(ledger: Option<&AppLedger>, cluster: &ClusterName, entry: &Entry) -> bool {
    let report = ledger.and_then(|l| l.reports.get(cluster));
    report.is_some_and(|r| r.generation >= entry.generation)
}
