use proptest::prelude::*;

use super::*;

const SPAN: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

#[test]
fn what_is_older_than_the_span_leaves_within_one_bucket() {
    let mut window = Window::new(SPAN);
    window.add(at(500), [1]);
    assert_eq!(window.sums(at(10_500)), [1]);
    assert_eq!(window.sums(at(10_999)), [1]);
    assert_eq!(window.sums(at(11_000)), [0]);
}

#[test]
fn a_burst_across_an_edge_is_never_split() {
    for start in (0..30_000).step_by(77) {
        let mut window = Window::new(SPAN);
        for step in 0..100 {
            window.add(at(start + step * 100), [1]);
        }
        assert_eq!(window.sums(at(start + 9_900)), [100], "from {start} ms");
    }
}

#[test]
fn each_counter_is_its_own() {
    let mut window = Window::new(SPAN);
    window.add(at(0), [1, 0]);
    window.add(at(5_000), [1, 2]);
    assert_eq!(window.sums(at(5_000)), [2, 2]);
    assert_eq!(window.sums(at(11_000)), [1, 2]);
}

#[test]
fn an_earlier_moment_counts_as_the_latest_one() {
    let mut window = Window::new(SPAN);
    window.add(at(20_000), [1]);
    window.add(at(1_000), [1]);
    assert_eq!(window.sums(at(0)), [2]);
    assert_eq!(window.sums(at(30_000)), [2]);
}

#[test]
fn a_long_silence_empties_it_at_once() {
    let mut window = Window::new(SPAN);
    window.add(at(0), [9]);
    assert_eq!(window.sums(Time::from_nanos(u64::MAX)), [0]);
}

#[test]
fn what_is_forgotten_counts_no_more() {
    let mut window = Window::new(SPAN);
    window.add(at(0), [3]);
    window.add(at(1_000), [1]);
    window.clear();
    assert_eq!(window.sums(at(1_100)), [0]);
}

#[test]
fn sums_stop_at_the_largest_number_and_still_come_down() {
    let mut window = Window::new(SPAN);
    window.add(at(0), [u64::MAX]);
    window.add(at(5_000), [7]);
    assert_eq!(window.sums(at(5_000)), [u64::MAX]);
    assert_eq!(window.sums(at(11_000)), [0]);
}

#[test]
fn a_span_or_a_number_of_buckets_of_nothing_is_the_least_there_is() {
    let mut window = Window::with_buckets(Duration::ZERO, 0);
    window.add(Time::from_nanos(1), [1]);
    assert_eq!(window.sums(Time::from_nanos(1)), [1]);
    assert_eq!(window.sums(Time::from_nanos(3)), [0]);
    window.add(Time::from_nanos(u64::MAX), [1]);
    assert_eq!(window.sums(Time::from_nanos(u64::MAX)), [1]);
}

proptest! {
    /// The reference keeps every event and filters by whole buckets.
    #[test]
    fn it_counts_as_a_list_of_all_events_would(
        span in 1..50_u64,
        buckets in 1..12_u32,
        events in prop::collection::vec((0..30_u64, 0..5_u64), 1..200),
    ) {
        let mut window = Window::with_buckets(Duration::from_nanos(span), buckets);
        let mut now = 0;
        let mut all = Vec::new();
        for (step, number) in events {
            now += step;
            window.add(Time::from_nanos(now), [number]);
            all.push((now, number));
            let [sum] = window.sums(Time::from_nanos(now));
            let width = span.div_ceil(u64::from(buckets)).max(1);
            let within = |oldest: u64| -> u64 {
                all.iter().filter(|(then, _)| *then >= oldest).map(|(_, n)| n).sum()
            };
            let oldest = (now / width).saturating_sub(u64::from(buckets)) * width;
            prop_assert_eq!(sum, within(oldest));
            prop_assert!(sum >= within(now.saturating_sub(span)));
        }
    }
}
