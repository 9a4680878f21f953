//! What of a placement the tenant's Quotas leave room for. Nothing grows beyond it: neither in replicas,
//! nor by a change that asks for more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::Division;

use super::choose::ByRegion;
use super::divide::{self, divide};
use super::{At, Load, Placed, Room, Standing};
use crate::report::{QuotaShort, Shortage};

/// What an App gets of what it asks for.
#[derive(Debug, Default)]
pub(super) struct Bought {
    pub(super) targets: BTreeMap<At, Load>,
    /// Clusters whose entry stays as it is.
    pub(super) withheld: BTreeSet<At>,
    pub(super) shortage: Option<Shortage>,
    pub(super) short: Option<Arc<QuotaShort>>,
}

fn count(targets: &BTreeMap<At, Load>) -> i32 {
    let counts = targets.values().map(|load| load.count());
    counts.fold(0, i32::saturating_add)
}

/// Divides an App over the chosen regions, with as many replicas as the Quotas leave room for.
pub(super) fn buy(
    standing: &Standing<'_>,
    chosen: &ByRegion,
    least: usize,
    room: &mut Room,
) -> Bought {
    let (targets, shortage) = divide(standing, chosen, least, room, None);
    let short = match room.pay(standing, &targets) {
        Ok(()) => {
            let short = match shortage {
                Some(Shortage::Capacity { .. }) => bound(standing, chosen, &targets, room),
                Some(_) | None => None,
            };
            let shortage = match (shortage, &short) {
                (Some(Shortage::Capacity { placed, wanted }), Some(_)) => {
                    Some(Shortage::Quota { placed, wanted })
                }
                (shortage, _) => shortage,
            };
            return Bought {
                targets,
                shortage,
                short,
                ..Bought::default()
            };
        }
        Err(short) => short,
    };
    let wanted = match shortage {
        Some(Shortage::Capacity { wanted, .. }) => wanted,
        Some(_) | None => count(&targets),
    };
    let mut bought = fewer(standing, chosen, least, room, &targets)
        .unwrap_or_else(|| piece_by_piece(standing, targets, room));
    bought.shortage = Some(Shortage::Quota {
        placed: count(&bought.targets),
        wanted,
    });
    // The same whether or not what was bought is in the ledger yet, so that it is said once.
    let next = || bound(standing, chosen, &bought.targets, room);
    let withheld = !bought.withheld.is_empty();
    bought.short = (!withheld).then(next).flatten().or(Some(short));
    bought
}

/// The largest number of replicas that can be paid for, divided as the App asks.
fn fewer(
    standing: &Standing<'_>,
    chosen: &ByRegion,
    least: usize,
    room: &mut Room,
    all: &BTreeMap<At, Load>,
) -> Option<Bought> {
    let division = divide::division(standing.app)?;
    if division == Division::Duplicate {
        return None;
    }
    let (mut low, mut high) = (count(&standing.keep), count(all) - 1);
    let mut best = None;
    while low <= high {
        let middle = low + (high - low) / 2;
        let (targets, _) = divide(standing, chosen, least, room, Some(middle));
        if room.could_pay(standing, &targets) {
            best = Some(targets);
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    let targets = best.filter(|targets| !targets.is_empty())?;
    room.pay(standing, &targets).ok()?;
    Some(Bought {
        targets,
        ..Bought::default()
    })
}

/// Pays for one cluster after the other, those that the App has first.
fn piece_by_piece(standing: &Standing<'_>, targets: BTreeMap<At, Load>, room: &mut Room) -> Bought {
    let mut bought = Bought::default();
    let mut denied = false;
    let (kept, new): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|(at, _)| standing.keep.contains_key(at));
    for (at, load) in kept.into_iter().chain(new) {
        let had = standing.keep.get(&at).copied();
        let most = had.map_or(0, Load::count) + room.fit(at, standing, had.map(Load::count));
        let tries = [load, load.at_most(most)];
        let mut pays = |load: &Load| room.pay(standing, &BTreeMap::from([(at, *load)])).is_ok();
        let paid = tries.into_iter().find(&mut pays);
        denied |= paid.or(had).map_or(0, Load::count) < load.count();
        match (paid, had) {
            (Some(Load::Replicas(0)), None) if load.count() > 0 => {}
            (Some(load), _) => drop(bought.targets.insert(at, load)),
            (None, Some(had)) => {
                bought.withheld.insert(at);
                bought.targets.insert(at, load.at_most(had.count()));
            }
            (None, None) => {}
        }
    }
    if denied {
        // Nothing shrinks for the sake of what does not grow.
        for (at, load) in &mut bought.targets {
            if let Some(had) = standing
                .keep
                .get(at)
                .filter(|had| had.count() > load.count())
            {
                *load = *had;
            }
        }
    }
    bought
}

/// Pays for what stays where it is, and may still ask for more than before.
pub(super) fn keep(standing: &Standing<'_>, placed: &mut Placed, room: &mut Room) {
    let mut short = None;
    for (at, load) in &placed.targets {
        if let Err(why) = room.pay(standing, &BTreeMap::from([(*at, *load)])) {
            short.get_or_insert(why);
            placed.withheld.insert(*at);
        }
    }
    if placed.shortage.is_none() && short.is_some() {
        let placed_now = count(&placed.targets);
        placed.shortage = Some(Shortage::Quota {
            placed: placed_now,
            wanted: placed_now,
        });
        placed.short = short;
    }
}

/// The Quota that stands in the way where clusters would have room, if one does.
fn bound(
    standing: &Standing<'_>,
    chosen: &ByRegion,
    targets: &BTreeMap<At, Load>,
    room: &Room,
) -> Option<Arc<QuotaShort>> {
    let mut clusters = chosen.values().flatten();
    clusters.find_map(|at| {
        let has = targets.get(at).map(|load| load.count());
        room.short_of(standing, *at, has)
    })
}
