//! Guards that come, die, are cut off and restart, and a limit that holds over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use shield::{Bucket, Pace, Share, Time};

use super::{FORMER_MAX, Late, Ledger, Limit};
use crate::guard::exchange::{Demand, GUARDS_MAX, HOLD, LEASE, PERIOD, Report};

fn limit(rate: u64) -> Limit {
    Limit {
        key: ("ns/policy".into(), "all".into()),
        rate: rate * 1000,
        is_keyed: false,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A guard as control meets it.
struct Guard {
    report: Report,
    held: Share,
    offered: u64,
}

impl Guard {
    fn new(name: &str) -> Self {
        let report = Report {
            guard: name.into(),
            session: 1,
            ..Report::default()
        };
        Self {
            report,
            held: Share::NONE,
            offered: 0,
        }
    }

    fn serving(name: &str, held: Share) -> Self {
        let mut guard = Self::new(name);
        guard.report.revision = "r1".into();
        guard.held = held;
        guard
    }

    fn report(&mut self) -> Report {
        self.report.sequence += 1;
        if !self.report.revision.is_empty() {
            let demand = Demand {
                offered: self.offered,
                share: self.held,
            };
            let rules = BTreeMap::from([("all".to_owned(), demand)]);
            self.report.demand = BTreeMap::from([("ns/policy".to_owned(), rules)]);
        }
        self.report.clone()
    }

    fn exchange(&mut self, ledger: &mut Ledger, now: Duration) -> Share {
        let answer = ledger
            .exchange(&[limit(1000)], &self.report(), now)
            .unwrap();
        self.held = answer.shares["ns/policy"]["all"];
        self.held
    }
}

/// A ledger whose time of learning is over, in which it heard these.
fn settled<const N: usize>(guards: [&mut Guard; N]) -> (Ledger, Duration) {
    let mut ledger = Ledger::new(2, Duration::ZERO);
    for guard in guards {
        guard.exchange(&mut ledger, seconds(1));
    }
    (ledger, seconds(3))
}

#[test]
fn a_guard_gets_more_only_after_the_other_said_that_it_has_less() {
    let (mut a, mut b) = (
        Guard::serving("a", Share::one_of(2)),
        Guard::serving("b", Share::one_of(2)),
    );
    let (mut ledger, mut now) = settled([&mut a, &mut b]);
    for _ in 0..20 {
        now += Duration::from_millis(150);
        (a.offered, b.offered) = (a.offered + 300, b.offered + 1);
        a.exchange(&mut ledger, now);
        let sum = a.held.as_millionths() + b.held.as_millionths();
        assert!(sum <= 1_000_000, "{sum}");
        b.exchange(&mut ledger, now);
        let sum = a.held.as_millionths() + b.held.as_millionths();
        assert!(sum <= 1_000_000, "{sum}");
    }
    assert!(a.held > Share::millionths(900_000), "{:?}", a.held);
    assert!(b.held >= Share::millionths(50_000), "{:?}", b.held);
}

#[test]
fn what_a_dead_guard_held_goes_to_the_others_when_its_lease_ran_out() {
    let (mut a, mut b) = (
        Guard::serving("a", Share::one_of(2)),
        Guard::serving("b", Share::one_of(2)),
    );
    let (mut ledger, now) = settled([&mut a, &mut b]);
    a.exchange(&mut ledger, now);
    b.exchange(&mut ledger, now);
    let nearly = now + LEASE;
    assert_eq!(a.exchange(&mut ledger, nearly), Share::one_of(2));
    let after = nearly + Duration::from_millis(150);
    assert_eq!(a.exchange(&mut ledger, after), Share::WHOLE);
}

#[test]
fn a_guard_that_is_there_and_not_heard_keeps_what_it_falls_to() {
    let (mut a, mut b) = (
        Guard::serving("a", Share::one_of(10)),
        Guard::serving("b", Share::millionths(900_000)),
    );
    let (mut ledger, now) = settled([&mut a, &mut b]);
    ledger.stand(BTreeSet::from(["a".into(), "b".into()]));
    b.exchange(&mut ledger, now);
    a.exchange(&mut ledger, now);
    b.exchange(&mut ledger, now);
    let late = now + LEASE + seconds(1);
    let held = a.exchange(&mut ledger, late);
    assert!(held <= Share::one_of(2), "{held:?}");
}

#[test]
fn a_guard_that_leaves_frees_its_part_at_once() {
    let (mut a, mut b) = (
        Guard::serving("a", Share::one_of(2)),
        Guard::serving("b", Share::one_of(2)),
    );
    let (mut ledger, now) = settled([&mut a, &mut b]);
    b.exchange(&mut ledger, now);
    a.exchange(&mut ledger, now);
    ledger.leave("b");
    assert_eq!(a.exchange(&mut ledger, now), Share::WHOLE);
}

#[test]
fn a_new_leader_gives_nobody_more_before_it_heard_those_that_are_there() {
    let mut ledger = Ledger::new(2, Duration::ZERO);
    ledger.stand(BTreeSet::from(["a".into(), "b".into()]));
    let mut a = Guard::serving("a", Share::millionths(100_000));
    for second in 1..29 {
        assert_eq!(
            a.exchange(&mut ledger, seconds(second)),
            Share::millionths(100_000),
        );
    }
    let mut b = Guard::serving("b", Share::one_of(2));
    b.exchange(&mut ledger, seconds(29));
    assert_eq!(a.exchange(&mut ledger, seconds(29)), Share::one_of(2));
}

#[test]
fn the_first_guards_of_a_cluster_have_their_parts_in_seconds() {
    let mut ledger = Ledger::new(2, Duration::ZERO);
    let (mut a, mut b) = (Guard::new("a"), Guard::new("b"));
    for now in [seconds(1), seconds(4), seconds(4), seconds(4)] {
        a.exchange(&mut ledger, now);
        b.exchange(&mut ledger, now);
    }
    assert_eq!((a.held, b.held), (Share::one_of(2), Share::one_of(2)));
}

#[test]
fn a_report_that_was_overtaken_counts_for_nothing() {
    let mut a = Guard::serving("a", Share::WHOLE);
    let (mut ledger, now) = settled([&mut a]);
    let early = a.report();
    a.exchange(&mut ledger, now);
    assert_eq!(
        ledger.exchange(&[limit(1000)], &early, now),
        Err(Late::Overtaken)
    );
}

#[test]
fn of_two_guards_with_one_name_the_later_alone_is_answered_and_it_is_told_once() {
    let mut first = Guard::serving("a", Share::WHOLE);
    let (mut ledger, now) = settled([&mut first]);
    let mut second = Guard::new("a");
    second.report.session = 2;
    second.exchange(&mut ledger, now);
    let mut again = |ledger: &mut Ledger| ledger.exchange(&[limit(1000)], &first.report(), now);
    let superseded = |is_first| Err(Late::Superseded { is_first });
    assert_eq!(again(&mut ledger), superseded(true));
    assert_eq!(again(&mut ledger), superseded(false));
    assert_eq!(second.exchange(&mut ledger, now), Share::WHOLE);
    assert_eq!(again(&mut ledger), superseded(false));
}

#[test]
fn a_guard_that_begins_anew_is_answered_however_often_it_does() {
    let mut ledger = Ledger::new(1, Duration::ZERO);
    for session in 1..100 {
        let mut run = Guard::new("a");
        run.report.session = session;
        run.exchange(&mut ledger, seconds(session));
        assert!(ledger.members["a"].former.len() <= FORMER_MAX);
    }
}

#[test]
fn a_guard_whose_name_another_had_for_a_while_is_answered_when_that_is_gone() {
    let mut first = Guard::serving("a", Share::WHOLE);
    let (mut ledger, now) = settled([&mut first]);
    // The cluster knows one of the two by this name, and not which.
    ledger.stand(BTreeSet::from(["a".into()]));
    let mut second = Guard::new("a");
    second.report.session = 2;
    second.exchange(&mut ledger, now);
    let mut is_answered = |at| ledger.exchange(&[limit(1000)], &first.report(), at).is_ok();
    assert!(!is_answered(now + LEASE));
    assert!(is_answered(now + LEASE + Duration::from_millis(1)));
}

#[test]
fn names_that_nobody_bears_take_no_parts_and_no_memory() {
    let mut a = Guard::serving("a", Share::WHOLE);
    let (mut ledger, now) = settled([&mut a]);
    let claim = |ledger: &mut Ledger, name: String, sequence| {
        let report = Report {
            guard: name,
            sequence,
            ..Report::default()
        };
        ledger.exchange(&[limit(1000)], &report, now)
    };
    for number in 0..1000 {
        let claimed = claim(&mut ledger, format!("false-{number}"), 0);
        assert_eq!(claimed, Err(Late::Overtaken));
    }
    assert_eq!(a.exchange(&mut ledger, now), Share::WHOLE);
    for number in 1..GUARDS_MAX {
        assert!(claim(&mut ledger, format!("true-{number}"), 1).is_ok());
    }
    assert_eq!(claim(&mut ledger, "one".into(), 1), Err(Late::TooMany));
    // The places of those that are gone are free when their leases ran out.
    let later = now + LEASE + Duration::from_millis(1);
    a.exchange(&mut ledger, later);
    assert_eq!(ledger.members.len(), 1);
}

#[test]
fn a_limit_is_divided_once_in_a_beat_however_many_guards_report() {
    let mut ledger = Ledger::new(2, Duration::ZERO);
    let serving = |number| Guard::serving(&format!("guard-{number}"), Share::NONE);
    let mut guards: Vec<_> = (0..GUARDS_MAX).map(serving).collect();
    let mut divided = Vec::new();
    for (beat, seconds) in (0..).zip([3, 4, 5]) {
        for (pause, guard) in (0..).map(Duration::from_micros).zip(&mut guards) {
            guard.offered += 10;
            guard.exchange(&mut ledger, Duration::from_secs(seconds) + pause);
            let at = ledger.columns[0].divided.map(|(_, at)| at);
            divided.extend(at.filter(|_| beat > 0));
        }
    }
    divided.dedup();
    assert_eq!(divided, [seconds(4), seconds(5)]);
    assert!(PERIOD < seconds(1));
    let sum: u32 = guards.iter().map(|guard| guard.held.as_millionths()).sum();
    assert!((950_000..=1_000_000).contains(&sum), "{sum}");
}

#[test]
fn a_guard_that_serves_is_told_nothing_of_a_limit_that_it_does_not_tell() {
    let mut a = Guard::serving("a", Share::WHOLE);
    let (mut ledger, now) = settled([&mut a]);
    let mut b = Guard::serving("b", Share::NONE);
    let silent = Report {
        demand: [].into(),
        ..b.report()
    };
    let answer = ledger.exchange(&[limit(1000)], &silent, now).unwrap();
    assert!(answer.shares.is_empty(), "it goes on with an even part");
    assert_eq!(answer.guards, 2);
    assert_eq!(a.exchange(&mut ledger, now), Share::one_of(2));
    // One that does not serve yet is told of all, so that it may begin.
    assert_eq!(Guard::new("c").exchange(&mut ledger, now), Share::NONE);
}

#[test]
fn at_rest_parts_stay_as_they_are() {
    let (mut a, mut b) = (Guard::new("a"), Guard::new("b"));
    let (mut ledger, mut now) = settled([&mut a, &mut b]);
    let mut seen = BTreeSet::new();
    for turn in 0..100_u64 {
        now += Duration::from_millis(150);
        a.offered += 10 + turn % 2;
        b.offered += 10 + turn % 3;
        let held = (a.exchange(&mut ledger, now), b.exchange(&mut ledger, now));
        (a.report.revision, b.report.revision) = ("r1".into(), "r1".into());
        if turn > 20 {
            seen.insert(held);
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// What happens to a guard in a step of 150 ms.
#[derive(Clone, Debug)]
enum Event {
    Asked(u64),
    ReportLost,
    AnswerLost,
    CutOff(u16),
    Restart,
    NewLeader,
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let event = prop_oneof![
        6 => (0..300_u64).prop_map(Event::Asked),
        2 => Just(Event::ReportLost),
        2 => Just(Event::AnswerLost),
        1 => (1..400_u16).prop_map(Event::CutOff),
        1 => Just(Event::Restart),
        1 => Just(Event::NewLeader),
    ];
    (0..3_usize, event)
}

/// A guard with a bucket of its own.
struct Simulated {
    guard: Guard,
    bucket: Bucket,
    name: String,
    asked: u64,
    cut_off: u16,
    skips: Option<bool>,
    since: Duration,
    told: u32,
}

const BURST: u32 = 60;

impl Simulated {
    fn new(number: usize, run: u64, now: Duration) -> Self {
        let name = format!("guard-{number}-{run}");
        let mut bucket = Self::bucket(Share::WHOLE);
        bucket = Bucket::empty(bucket.pace(), time(now));
        Self {
            guard: Guard::new(&name),
            bucket,
            name,
            asked: 50,
            cut_off: 0,
            skips: None,
            since: now,
            told: 2,
        }
    }

    fn pace(share: Share) -> Pace {
        Pace::per_second(1000.0, BURST).unwrap().part(share)
    }

    fn bucket(share: Share) -> Bucket {
        Bucket::full(Self::pace(share))
    }

    fn hold(&mut self, share: Share, now: Duration) {
        self.guard.held = share;
        self.bucket.set(Self::pace(share), time(now));
    }

    fn is_serving(&self) -> bool {
        !self.guard.report.revision.is_empty()
    }

    /// Requests over the step before `now`.
    fn serve(&mut self, now: Duration) -> u64 {
        if !self.is_serving() {
            return 0;
        }
        self.guard.offered += self.asked;
        let passed = (0..self.asked).filter(|_| self.bucket.take(1, time(now)).is_ok());
        u64::try_from(passed.count()).unwrap()
    }

    fn talk(&mut self, ledger: &mut Ledger, now: Duration) {
        if self.cut_off > 0 {
            self.cut_off -= 1;
        } else if self.skips == Some(true) {
            self.skips = None;
        } else {
            let answer = ledger.exchange(&[limit(1000)], &self.guard.report(), now);
            let answer = answer.unwrap();
            if self.skips.take().is_none() {
                self.since = now;
                self.told = answer.guards;
                self.hold(answer.shares["ns/policy"]["all"], now);
                if self.guard.held > Share::NONE {
                    self.guard.report.revision = "r1".into();
                }
            }
        }
        if self.is_serving() && now.saturating_sub(self.since) > HOLD {
            self.hold(Share::one_of(self.told), now);
        }
    }
}

fn time(now: Duration) -> Time {
    Time::ZERO.after(now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_happens_all_guards_together_let_no_more_pass_than_the_limit(
        events in proptest::collection::vec(event(), 10..60),
        pauses in proptest::collection::vec(1..30_u32, 60),
    ) {
        let mut now = Duration::ZERO;
        let mut ledger = Ledger::new(3, now);
        let mut run = 0;
        let mut guards: Vec<_> = (0..3).map(|number| Simulated::new(number, run, now)).collect();
        let (mut admitted, mut lowest, mut highest) = (0_i64, 0_i64, 0_i64);
        let step = Duration::from_millis(150);
        for ((at, event), pause) in events.into_iter().zip(pauses) {
            match event {
                Event::Asked(asked) => guards[at].asked = asked,
                Event::ReportLost => guards[at].skips = Some(true),
                Event::AnswerLost => guards[at].skips = Some(false),
                Event::CutOff(steps) => guards[at].cut_off = steps,
                Event::Restart => {
                    run += 1;
                    guards[at] = Simulated::new(at, run, now);
                }
                Event::NewLeader => ledger = Ledger::new(3, now),
            }
            for _ in 0..pause {
                now += step;
                // Guards that serve are in the Service's slices, wherever the network is cut.
                let serving = guards.iter().filter(|guard| guard.is_serving());
                ledger.stand(serving.map(|guard| guard.name.clone()).collect());
                for guard in &mut guards {
                    admitted += i64::try_from(guard.serve(now)).unwrap();
                    guard.talk(&mut ledger, now);
                }
                // Over any window: what passed beyond the rate since the lowest point.
                let beyond = admitted - i64::try_from(now.as_millis()).unwrap();
                lowest = lowest.min(beyond);
                highest = highest.max(beyond - lowest);
            }
        }
        // A step's requests come at its end, so a window may hold one step more; each guard holds a
        // token at least.
        let most = i64::from(BURST) + 150 + 3;
        prop_assert!(highest * 100 <= most * 102, "{highest} beyond {most}");
    }
}
