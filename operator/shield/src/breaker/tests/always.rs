//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

/// As long as a probe keeps its place.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Act {
    Admit,
    Finish {
        which: usize,
        bad: bool,
    },
    Cancel {
        which: usize,
    },
    Wait {
        millis: u64,
    },
    Set {
        probes: u32,
        open_for: u64,
        percent: u32,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let millis = prop_oneof![8 => 0..4_000_u64, 1 => 25_000..40_000_u64];
    let set = (1..4_u32, 1..9_u64, 30..60_u32);
    prop_oneof![
        12 => Just(Act::Admit),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(which, bad)| Act::Finish { which, bad }),
        2 => any::<usize>().prop_map(|which| Act::Cancel { which }),
        4 => millis.prop_map(|millis| Act::Wait { millis }),
        1 => set.prop_map(|(probes, open_for, percent)| Act::Set { probes, open_for, percent }),
    ]
}

/// The probes of a half-open breaker, as a list of all of them knows them.
#[derive(Debug, Default)]
struct Model {
    epoch: u64,
    /// When each was admitted that has not come back.
    flying: Vec<(u64, Time)>,
    good: u32,
}

impl Model {
    fn admitted(&mut self, mark: Mark, now: Time) {
        if let Some(id) = mark.probe {
            if mark.epoch != self.epoch {
                *self = Self {
                    epoch: mark.epoch,
                    ..Self::default()
                };
            }
            self.flying.push((id, now));
        }
    }

    fn back(&mut self, mark: Mark, is_good: bool) {
        if mark.probe.is_some() && mark.epoch == self.epoch {
            self.flying.retain(|(id, _)| Some(*id) != mark.probe);
            self.good += u32::from(is_good);
        }
    }

    fn unfinished(&self, now: Time) -> u32 {
        let fresh = self
            .flying
            .iter()
            .filter(|(_, since)| now < since.after(PATIENCE));
        u32::try_from(fresh.count()).unwrap()
    }
}

proptest! {
    #[test]
    fn whatever_happens_probes_are_bounded_and_it_is_never_stuck(
        acts in prop::collection::vec(act(), 1..400),
        min_requests in 1..6_u32,
        seed: u64,
    ) {
        let condition = Condition::Errors { percent: 50 };
        let mut set = BreakerSettings { min_requests, probes: 3, ..settings(condition) };
        let breaker = Breaker::new(set.clone(), seed).unwrap();
        let (mut now, mut held, mut model) = (at(0), Vec::new(), Model::default());
        for act in acts {
            match act {
                Act::Admit => if let Ok(pass) = breaker.admit(now) {
                    let is_probe = pass.mark.probe.is_some();
                    model.admitted(pass.mark, now);
                    let most = set.probes - model.good.min(set.probes);
                    prop_assert!(!is_probe || model.unfinished(now) <= most, "{model:?}");
                    held.push(pass);
                },
                Act::Finish { which, bad } if !held.is_empty() => {
                    let pass = held.swap_remove(which % held.len());
                    model.back(pass.mark, !bad);
                    breaker.finish(pass, if bad { BAD } else { GOOD }, now);
                }
                Act::Cancel { which } if !held.is_empty() => {
                    let pass = held.swap_remove(which % held.len());
                    model.back(pass.mark, false);
                    breaker.cancel(pass, now);
                }
                Act::Wait { millis } => now = now.after(Duration::from_millis(millis)),
                Act::Set { probes, open_for, percent } => {
                    let condition = Condition::Errors { percent };
                    let open_for = Duration::from_secs(open_for);
                    let before = breaker.state(now);
                    set = BreakerSettings { condition, open_for, probes, ..set };
                    breaker.set(&set, now);
                    let is_open = matches!(before, BreakerState::Open { .. });
                    prop_assert!(!is_open || breaker.admit(now).is_err());
                }
                Act::Finish { .. } | Act::Cancel { .. } => {}
            }
            match breaker.state(now) {
                BreakerState::HalfOpen { unfinished, good } => {
                    prop_assert!(good < set.probes, "then it recovers");
                    let is_known = breaker.change(|core| core.epoch()) == model.epoch;
                    let expected = if is_known { (model.unfinished(now), model.good) } else { (0, 0) };
                    prop_assert_eq!((unfinished, good), expected);
                }
                BreakerState::Open { until } => {
                    prop_assert!(until > now);
                    prop_assert!(breaker.admit(now).is_err());
                    prop_assert!(until.since(now) <= set.open_for * 11);
                }
                BreakerState::Recovering { percent } => {
                    prop_assert!((10..=100).contains(&percent));
                }
                BreakerState::Closed => held.push(breaker.admit(now).unwrap()),
            }
        }
        let quiet = now.after(PATIENCE + set.open_for * 11);
        prop_assert!(breaker.admit(quiet).is_ok());
    }
}
