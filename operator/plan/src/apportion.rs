//! Dividing a whole number by weights, so that raising the number never takes anything from anyone.

/// One party of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its weight; 0 gets nothing beyond its floor.
    pub(crate) weight: u64,
    /// What it has at least.
    pub(crate) floor: i32,
    /// What it can take at most.
    pub(crate) cap: i32,
    /// What it has now, which breaks ties: nobody gives a seat to an equal.
    pub(crate) has: i32,
}

/// Divides `total` by Webster's method: seat after seat goes to the party whose weight per
/// (2 x seats + 1) is the highest; ties go to who has that seat already, then to the earlier party.
/// Returns the seats; they sum to less than `total` when the caps do.
///
/// Webster's method is monotone in the total, unlike rounding shares: scaling an App up never
/// takes a replica from a cluster. Floors are seats already taken, which makes decisions sticky.
pub(crate) fn apportion(total: i32, shares: &[Share]) -> Vec<i32> {
    let mut seats: Vec<i32> = shares.iter().map(|s| s.floor.min(s.cap)).collect();
    let mut left = i64::from(total) - seats.iter().map(|s| i64::from(*s)).sum::<i64>();
    jump(&mut left, &mut seats, shares);
    let mut heap: std::collections::BinaryHeap<Claim> = shares
        .iter()
        .enumerate()
        .filter_map(|(at, s)| Claim::of(at, *s, seats[at]))
        .collect();
    while left > 0 {
        let Some(best) = heap.pop() else { break };
        seats[best.at] += 1;
        left -= 1;
        heap.extend(Claim::of(best.at, shares[best.at], seats[best.at]));
    }
    seats
}

/// Takes seats away until they sum to `total`: the reverse of [`apportion`], so that what was
/// added last goes first.
pub(crate) fn reduce(total: i32, weights: &[u64], seats: &mut [i32]) {
    let mut surplus = seats.iter().map(|s| i64::from(*s)).sum::<i64>() - i64::from(total);
    while surplus > 0 {
        // The party whose last seat was the weakest claim gives it up; later parties lose ties.
        let weakest = (0..seats.len()).filter(|at| seats[*at] > 0).max_by(|a, b| {
            let claim = |at: usize| {
                (
                    u128::try_from(2 * i64::from(seats[at]) - 1).unwrap_or(1),
                    u128::from(weights[at]),
                )
            };
            let ((na, wa), (nb, wb)) = (claim(*a), claim(*b));
            (na * wb).cmp(&(nb * wa)).then(a.cmp(b))
        });
        let Some(at) = weakest else { break };
        seats[at] -= 1;
        surplus -= 1;
    }
}

/// Hands out at once what Webster's method gives in any case: with no floors and no caps near,
/// every party gets at least its exact share, rounded down, less one.
fn jump(left: &mut i64, seats: &mut [i32], shares: &[Share]) {
    let weight: u128 = shares.iter().map(|s| u128::from(s.weight)).sum();
    let parties = i64::try_from(shares.len()).unwrap_or(i64::MAX);
    if weight == 0 || *left <= 4 * parties || shares.iter().any(|s| s.floor > 0) {
        return;
    }
    let total = u128::try_from(*left).unwrap_or(0);
    for (seat, share) in seats.iter_mut().zip(shares) {
        let exact = total * u128::from(share.weight) / weight;
        // Webster may stay below the lower quota by less than the number of parties.
        let safe = i64::try_from(exact).unwrap_or(0) - parties;
        let take = i32::try_from(safe.max(0)).unwrap_or(0).min(share.cap);
        *seat += take;
        *left -= i64::from(take);
    }
}

/// The claim of a party to its next seat.
#[derive(PartialEq, Eq)]
struct Claim {
    weight: u64,
    divisor: u64,
    has: bool,
    at: usize,
}

impl Claim {
    fn of(at: usize, share: Share, seats: i32) -> Option<Self> {
        let divisor = 2 * u64::try_from(seats).ok()? + 1;
        let has = seats < share.has;
        (share.weight > 0 && seats < share.cap).then_some(Self {
            weight: share.weight,
            divisor,
            has,
            at,
        })
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let mine = u128::from(self.weight) * u128::from(other.divisor);
        let theirs = u128::from(other.weight) * u128::from(self.divisor);
        mine.cmp(&theirs)
            .then(self.has.cmp(&other.has))
            .then(other.at.cmp(&self.at))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(weights: &[u64]) -> Vec<Share> {
        weights
            .iter()
            .map(|weight| Share {
                weight: *weight,
                floor: 0,
                cap: i32::MAX,
                has: 0,
            })
            .collect()
    }

    /// Webster's method as the textbook has it, one seat at a time.
    fn one_by_one(total: i32, shares: &[Share]) -> Vec<i32> {
        let mut seats: Vec<i32> = shares.iter().map(|s| s.floor.min(s.cap)).collect();
        while seats.iter().sum::<i32>() < total {
            let next = (0..shares.len())
                .filter(|at| shares[*at].weight > 0 && seats[*at] < shares[*at].cap)
                .min_by(|a, b| {
                    let claim = |at: usize| {
                        (
                            u128::from(shares[at].weight),
                            2 * u128::try_from(seats[at]).unwrap() + 1,
                        )
                    };
                    let ((wa, da), (wb, db)) = (claim(*a), claim(*b));
                    (wb * da).cmp(&(wa * db)).then(a.cmp(b))
                });
            let Some(at) = next else { break };
            seats[at] += 1;
        }
        seats
    }

    #[test]
    fn twelve_replicas_divide_by_three_two_one() {
        assert_eq!(apportion(12, &shares(&[3, 2, 1])), [6, 4, 2]);
    }

    #[test]
    fn what_a_full_party_cannot_take_goes_to_the_others() {
        let mut s = shares(&[1, 1, 1]);
        s[0].cap = 1;
        assert_eq!(apportion(9, &s), [1, 4, 4]);
        for s in &mut s {
            s.cap = 2;
        }
        assert_eq!(apportion(9, &s), [2, 2, 2]);
    }

    #[test]
    fn a_hundred_thousand_replicas_are_divided_exactly() {
        let seats = apportion(100_000, &shares(&[7, 11, 13]));
        assert_eq!(seats.iter().sum::<i32>(), 100_000);
        assert_eq!(seats, one_by_one(100_000, &shares(&[7, 11, 13])));
    }

    #[test]
    fn a_tie_goes_to_who_has_the_seat_already() {
        let mut s = shares(&[1, 1, 1]);
        s[2].has = 1;
        assert_eq!(apportion(1, &s), [0, 0, 1]);
        assert_eq!(apportion(2, &s), [1, 0, 1]);
    }

    proptest! {
        #[test]
        fn what_was_divided_once_stays_divided_so_whoever_comes_first(total in 0..200i32, weights in prop::collection::vec(0..9u64, 1..7)) {
            let mut s = shares(&weights);
            s.reverse();
            for (s, has) in s.iter_mut().zip(apportion(total, &shares(&weights)).into_iter().rev()) {
                s.has = has;
            }
            let has: Vec<i32> = s.iter().map(|s| s.has).collect();
            prop_assert_eq!(apportion(total, &s), has);
        }

        #[test]
        fn it_is_websters_method(total in 0..600i32, weights in prop::collection::vec(0..50u64, 1..7), caps in prop::collection::vec(0..300i32, 7), floors in prop::collection::vec(0..5i32, 7)) {
            let mut s = shares(&weights);
            for (at, s) in s.iter_mut().enumerate() {
                s.cap = caps[at];
                s.floor = if total > 300 { 0 } else { floors[at] };
            }
            prop_assert_eq!(apportion(total, &s), one_by_one(total, &s));
        }

        #[test]
        fn more_in_all_is_less_for_nobody(total in 0..400i32, more in 1..50i32, weights in prop::collection::vec(0..50u64, 1..7)) {
            let (few, many) = (apportion(total, &shares(&weights)), apportion(total + more, &shares(&weights)));
            prop_assert!(few.iter().zip(&many).all(|(f, m)| f <= m));
        }

        #[test]
        fn reducing_undoes_raising(total in 1..200i32, fewer in 0..200i32, weights in prop::collection::vec(1..50u64, 1..7)) {
            let fewer = fewer.min(total);
            let mut seats = apportion(total, &shares(&weights));
            reduce(fewer, &weights, &mut seats);
            prop_assert_eq!(seats, apportion(fewer, &shares(&weights)));
        }
    }
}
