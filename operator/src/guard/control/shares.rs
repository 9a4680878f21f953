//! Who of several guards may have how much of a limit.

use shield::Share;

/// A tenth of an even share is everybody's, whatever the demand: the first requests at a guard pass, and
/// are what tells that there is demand.
const FLOOR_DIVISOR: u32 = 10;

/// Divides a limit by demand, in thousandths of a request per second each: in the order of `demands`,
/// never more than the whole together.
///
/// Everybody has a floor. The rest is filled like water, so that nobody gets more than it asks for while
/// another gets less than it could have (max-min fairness). What nobody asks for is divided evenly: it
/// is what a sudden rise finds before the next exchange.
pub(super) fn apportion(limit: u64, demands: &[u64]) -> Vec<Share> {
    let count = u32::try_from(demands.len()).unwrap_or(u32::MAX).max(1);
    let whole = Share::WHOLE.as_millionths();
    let floor = whole / count / FLOOR_DIVISOR;
    let mut left = whole - floor * count;
    let wanted: Vec<u32> = demands
        .iter()
        .map(|demand| part(*demand, limit).saturating_sub(floor))
        .collect();
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| wanted[*at]);
    let mut given = vec![0; wanted.len()];
    let mut hungry = count;
    for at in order {
        given[at] = wanted[at].min(left / hungry);
        left -= given[at];
        hungry -= 1;
    }
    let spare = left / count;
    let whole_part = |given: u32| Share::millionths(floor + given + spare);
    given.into_iter().map(whole_part).collect()
}

/// A demand as a part of the limit, at most the whole.
fn part(demand: u64, limit: u64) -> u32 {
    let whole = u128::from(Share::WHOLE.as_millionths());
    let part = u128::from(demand) * whole / u128::from(limit.max(1));
    u32::try_from(part.min(whole)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(limit: u64, demands: &[u64]) -> Vec<u32> {
        let shares = apportion(limit, demands);
        let percent = |share: Share| (share.as_millionths() + 5_000) / 10_000;
        shares.into_iter().map(percent).collect()
    }

    #[test]
    fn without_demand_everybody_has_the_same() {
        assert_eq!(percent(100, &[0, 0]), [50, 50]);
        assert_eq!(percent(100, &[0]), [100]);
        assert!(apportion(100, &[]).is_empty());
    }

    #[test]
    fn who_asks_for_little_gets_it_and_the_rest_goes_to_those_who_ask_for_more() {
        assert_eq!(percent(100, &[10, 500]), [10, 90]);
        assert_eq!(percent(100, &[500, 500]), [50, 50]);
        assert_eq!(percent(100, &[0, 1000, 1000]), [3, 48, 48]);
    }

    #[test]
    fn what_nobody_asks_for_is_divided_evenly() {
        assert_eq!(percent(100, &[60, 20]), [70, 30]);
    }

    proptest! {
        #[test]
        fn the_whole_is_divided_and_no_more(
            limit in 1..10_000_000_u64,
            demands in proptest::collection::vec(0..u64::from(u32::MAX), 1..50),
        ) {
            let shares = apportion(limit, &demands);
            let sum: u64 = shares.iter().map(|share| u64::from(share.as_millionths())).sum();
            prop_assert!(sum <= 1_000_000 && sum + 200 > 1_000_000, "{sum}");
            let count = u32::try_from(demands.len()).unwrap();
            let floor = Share::millionths(1_000_000 / count / FLOOR_DIVISOR);
            prop_assert!(shares.iter().all(|share| *share >= floor));
        }

        #[test]
        fn who_asks_for_more_never_gets_less(
            limit in 1..100_000_u64,
            demands in proptest::collection::vec(0..200_000_u64, 2..20),
        ) {
            let shares = apportion(limit, &demands);
            for (one, its) in demands.iter().zip(&shares) {
                for (other, theirs) in demands.iter().zip(&shares) {
                    let rounding = Share::millionths(1);
                    prop_assert!(one < other || its.plus(rounding) >= *theirs);
                }
            }
        }
    }
}
