use super::*;
use crate::tier::Class;

fn queue(classes: &[(Tier, u8)]) -> Queue<u32> {
    let classes = classes.iter().map(|(tier, percent)| Class {
        tier: *tier,
        guaranteed_percent: Some(*percent),
    });
    Queue::new(&Classes::new(classes.collect()).unwrap())
}

/// The class at this place, as [`Classes`] number them.
fn id(place: usize) -> ClassId {
    ClassId {
        number: u64::try_from(place).unwrap(),
        tier: Tier::Ancillary,
    }
}

fn push(queue: &mut Queue<u32>, class: usize, waiter: u32) -> Place {
    let since = Time::from_nanos(u64::from(waiter));
    queue.push(id(class), since, waiter)
}

fn order(queue: &mut Queue<u32>, limit: u32) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop(limit).map(|next| next.waiter)).collect()
}

#[test]
fn the_important_go_first_and_equals_in_order_of_arrival() {
    let mut queue = queue(&[(Tier::Ancillary, 0), (Tier::Core, 0), (Tier::Core, 0)]);
    for (waiter, class) in [0, 2, 1, 2, 0].into_iter().enumerate() {
        push(&mut queue, class, u32::try_from(waiter).unwrap());
    }
    assert_eq!(queue.len_by_tier(), [3, 0, 0, 2]);
    assert_eq!(order(&mut queue, 10), [1, 2, 3, 0, 4]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn what_a_class_is_owed_goes_before_a_more_important_tier() {
    let mut queue = queue(&[(Tier::Core, 0), (Tier::Ancillary, 20)]);
    queue.started(id(1));
    for waiter in 0..4 {
        push(&mut queue, usize::from(waiter % 2 == 1), waiter);
    }
    // 20 % of 10 are 2, and one runs: one more is owed.
    let first = queue.pop(10).unwrap();
    assert_eq!(first.waiter, 1);
    queue.started(first.class);
    assert_eq!(order(&mut queue, 10), [0, 2, 3]);
}

#[test]
fn a_guarantee_is_never_rounded_to_nothing() {
    let mut queue = queue(&[(Tier::Core, 0), (Tier::Ancillary, 5)]);
    push(&mut queue, 0, 0);
    push(&mut queue, 1, 1);
    assert_eq!(queue.pop(4).unwrap().waiter, 1);
}

#[test]
fn the_newest_of_the_least_important_is_pushed_out_and_never_an_equal() {
    let mut queue = queue(&[(Tier::Core, 0), (Tier::General, 0), (Tier::Ancillary, 0)]);
    for (waiter, class) in [2, 1, 2].into_iter().enumerate() {
        push(&mut queue, class, u32::try_from(waiter).unwrap());
    }
    assert!(queue.displace(id(2), 10).is_none());
    assert_eq!(queue.displace(id(1), 10).unwrap().waiter, 2);
    assert_eq!(queue.displace(id(0), 10).unwrap().waiter, 0);
    assert!(queue.displace(id(1), 10).is_none());
    assert_eq!(queue.displace(id(0), 10).unwrap().waiter, 1);
}

#[test]
fn who_is_owed_a_permit_pushes_out_a_borrower_and_is_not_pushed_out() {
    let mut queue = queue(&[(Tier::Core, 0), (Tier::Ancillary, 10)]);
    push(&mut queue, 0, 0);
    assert_eq!(queue.displace(id(1), 10).unwrap().waiter, 0);
    push(&mut queue, 1, 1);
    assert!(queue.displace(id(0), 10).is_none());
    // The second of the class borrows.
    push(&mut queue, 1, 2);
    assert_eq!(queue.displace(id(0), 10).unwrap().waiter, 2);
}

#[test]
fn who_has_gone_is_found_once() {
    let mut queue = queue(&[(Tier::Core, 0)]);
    push(&mut queue, 0, 0);
    let place = push(&mut queue, 0, 1);
    assert_eq!(queue.remove(place).unwrap().waiter, 1);
    assert!(queue.remove(place).is_none());
    assert_eq!(queue.pop_older(Time::ZERO).unwrap().waiter, 0);
    assert!(queue.pop_older(Time::ZERO).is_none());
    assert_eq!(queue.len(), 0);
}

fn classes(of: &[(Tier, u8)]) -> Classes {
    let class = |(tier, percent): &(Tier, u8)| Class {
        tier: *tier,
        guaranteed_percent: Some(*percent),
    };
    Classes::new(of.iter().map(class).collect()).unwrap()
}

#[test]
fn who_runs_counts_for_a_class_that_moves_and_who_waits_goes_on_waiting() {
    let before = classes(&[(Tier::Core, 0), (Tier::General, 50)]);
    let mut queue = Queue::new(&before);
    let general = before.id(1).unwrap();
    for waiter in 0..3 {
        queue.started(general);
        queue.push(general, Time::ZERO, waiter);
    }
    // It comes first now, and is guaranteed less than it has.
    let after = classes(&[(Tier::Ancillary, 20), (Tier::Core, 0)]);
    let after = before.become_these(after, &[Some(1), Some(0)]);
    queue.set(&after);
    queue.push(after.id(1).unwrap(), Time::ZERO, 9);
    assert_eq!(queue.len_by_tier(), [1, 0, 0, 3]);
    assert_eq!(order(&mut queue, 10), [9, 0, 1, 2]);
    // Three ran of two that it is guaranteed: it was owed nothing.
    queue.ended(general);
    queue.ended(general);
    queue.push(general, Time::ZERO, 4);
    queue.push(after.id(1).unwrap(), Time::ZERO, 5);
    assert_eq!(
        order(&mut queue, 10),
        [4, 5],
        "one runs, and another is owed"
    );
}

#[test]
fn a_class_that_is_gone_is_guaranteed_nothing_and_forgotten_with_its_last_request() {
    let before = classes(&[(Tier::Ancillary, 90), (Tier::General, 0)]);
    let mut queue = Queue::new(&before);
    let (gone, stays) = (before.id(0).unwrap(), before.id(1).unwrap());
    queue.started(gone);
    let place = queue.push(gone, Time::ZERO, 1);
    let after = before.become_these(classes(&[(Tier::General, 0)]), &[Some(1)]);
    queue.set(&after);
    queue.push(stays, Time::ZERO, 2);
    assert_eq!(order(&mut queue, 10), [2, 1]);
    assert!(queue.remove(place).is_none());
    assert_eq!(queue.lanes.len(), 2, "one of it still runs");
    queue.ended(gone);
    assert_eq!(queue.lanes.len(), 1);
    // A request that began by the settings of before comes late.
    assert_eq!(queue.tier(gone), Tier::Ancillary);
    queue.push(stays, Time::ZERO, 3);
    assert!(queue.displace(gone, 10).is_none());
    queue.push(gone, Time::ZERO, 4);
    assert_eq!(order(&mut queue, 10), [3, 4]);
    queue.started(gone);
    queue.ended(gone);
    assert_eq!(queue.lanes.len(), 1);
}
