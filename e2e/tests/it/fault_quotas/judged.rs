//! Whether the judge finds what it is there for, and lets be what is allowed.

use super::judge::judge;
use super::record::{Change, Charged, Grant, Ledger, Said};

const SECOND: i64 = 1_000;

fn grant(cores: i64) -> Grant {
    Grant {
        nominal: cores * 1_000,
        borrows: 0,
        lends: cores * 1_000,
    }
}

/// A Region's ledger with cores by namespace.
fn ledger(region: &str, grants: &[(&str, i64)]) -> Said {
    let grants = grants
        .iter()
        .map(|(own, cores)| ((*own).to_owned(), [Some(grant(*cores)), None, None]));
    Said::Ledger(region.to_owned(), 1, grants.collect::<Ledger>())
}

fn budget(cores: i64) -> Said {
    Said::Budget("hangzhou".to_owned(), [Some(cores * 1_000), None, None])
}

/// A slice of the cluster in Hangzhou with one App of so many replicas of a core.
fn slice(name: &str, namespace: &str, replicas: i64) -> Said {
    let entry = Charged {
        uid: name.to_owned(),
        namespace: namespace.to_owned(),
        generation: 1,
        each: [1_000, 0, 0],
        stages: vec![(None, replicas)],
        ..Charged::default()
    };
    Said::Slice("hangzhou-a".to_owned(), name.to_owned(), 1, vec![entry])
}

/// How many breaches there are in a story, whose parts come at these seconds.
fn breaches(story: Vec<(i64, Said)>) -> usize {
    let numbered = (1..).zip(story);
    let changes = numbered.map(|(version, (second, said))| Change {
        version,
        at: second * SECOND,
        said,
    });
    judge(&changes.collect::<Vec<_>>()).breaches.len()
}

#[test]
fn what_is_granted_on_beyond_what_there_is_is_found_in_whichever_region() {
    let whole = || (0, ledger("zhejiang", &[("oak", 10)]));
    let inner = |cores| ledger("hangzhou", &[("oak-a", cores)]);
    assert_eq!(breaches(vec![whole(), (1, inner(10))]), 0);
    assert_eq!(breaches(vec![whole(), (1, inner(11))]), 1);
    let elsewhere = ledger("ningbo", &[("oak-a", 5)]);
    assert_eq!(breaches(vec![whole(), (1, inner(6)), (1, elsewhere)]), 1);
    let cut = ledger("zhejiang", &[("oak", 9)]);
    assert_eq!(breaches(vec![whole(), (1, inner(10)), (2, cut)]), 1);
}

#[test]
fn what_is_used_beyond_a_grant_or_a_budget_is_found() {
    let granted = || (0, ledger("hangzhou", &[("oak", 10), ("oak-a", 4)]));
    assert_eq!(breaches(vec![granted(), (20, slice("a", "oak-a", 4))]), 0);
    assert_eq!(breaches(vec![granted(), (20, slice("a", "oak-a", 5))]), 1);
    let above = slice("b", "oak", 7);
    let both = vec![granted(), (20, slice("a", "oak-a", 4)), (21, above)];
    assert_eq!(breaches(both), 1, "ten are eleven");
    let story = |replicas| vec![(0, budget(3)), granted(), (20, slice("a", "oak", replicas))];
    assert_eq!(
        (breaches(story(3)), breaches(story(4))),
        (1, 2),
        "and the grant"
    );
}

#[test]
fn what_was_decided_by_a_budget_that_was_cut_since_is_allowed_for_some_seconds() {
    let story = |second| {
        vec![
            (0, budget(10)),
            (0, ledger("hangzhou", &[("oak", 10)])),
            (20, budget(5)),
            (second, slice("a", "oak", 8)),
        ]
    };
    assert_eq!(breaches(story(25)), 0);
    assert_eq!(breaches(story(35)), 1);
}

#[test]
fn an_excess_that_a_user_made_may_stand_and_not_grow() {
    let story = |replicas| {
        vec![
            (0, ledger("hangzhou", &[("oak", 10)])),
            (1, slice("a", "oak", 10)),
            (20, ledger("hangzhou", &[("oak", 5)])),
            (40, slice("a", "oak", replicas)),
        ]
    };
    assert_eq!(breaches(story(10)), 0);
    assert_eq!(breaches(story(8)), 0);
    assert_eq!(breaches(story(11)), 1);
}

#[test]
fn slices_may_be_planned_on_what_the_ledgers_of_their_turn_replaced_and_on_nothing_older() {
    let oak = |region, cores| ledger(region, &[("oak", cores)]);
    let slices = || (1, slice("a", "oak", 8));
    // The turn began before or after the ledger of Zhejiang: nobody knows.
    let before = vec![(0, oak("zhejiang", 9)), (0, oak("hangzhou", 8))];
    let cut = vec![(1, oak("zhejiang", 5)), (1, oak("hangzhou", 5)), slices()];
    assert_eq!(breaches([before.clone(), cut].concat()), 0);
    // It began after the first one: a ledger is not written twice in a turn.
    let cut = vec![(1, oak("hangzhou", 5)), (1, oak("hangzhou", 4)), slices()];
    assert_eq!(breaches([before, cut].concat()), 1);
}

#[test]
fn a_stage_that_ends_while_a_change_is_being_written_is_no_growth_and_one_that_ended_before_is() {
    let shrinks = |name: &str, stages: Vec<(Option<i64>, i64)>| {
        let mut said = slice(name, "oak", 0);
        if let Said::Slice(.., entries) = &mut said {
            entries[0].stages = stages;
        }
        said
    };
    let story = |between: Vec<(i64, Said)>| {
        let first = vec![
            (0, ledger("hangzhou", &[("oak", 10)])),
            (1, shrinks("a", vec![(None, 8), (Some(30 * SECOND), 4)])),
            (2, ledger("hangzhou", &[("oak", 5)])),
            (20, slice("b", "oak", 0)),
            (29, slice("b", "oak", 0)),
        ];
        let again = (30, shrinks("a", vec![(None, 8)]));
        [first, between, vec![again]].concat()
    };
    assert_eq!(breaches(story(vec![])), 0, "8 until now, and 8 again");
    let next = (30, shrinks("a", vec![(None, 4)]));
    assert_eq!(breaches(story(vec![next.clone()])), 1, "it was down to 4");
    let late = vec![(31, slice("b", "oak", 0)), (33, slice("b", "oak", 0))];
    let late: Vec<_> = story(vec![])[..5].iter().cloned().chain(late).collect();
    let again = (33, shrinks("a", vec![(None, 8)]));
    assert_eq!(
        breaches([late, vec![again]].concat()),
        1,
        "planned after the stage began"
    );
}
