use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::Jitter;

const HOT: u64 = 0xfeed_0000_0000_0001;

fn at(micros: u64) -> Time {
    Time::from_nanos(micros * 1_000)
}

fn keys(hot_at_percent: u32) -> HotKeys {
    HotKeys::new(HotKeysSettings {
        hot_at_percent,
        min_per_second: 20,
    })
    .unwrap()
}

fn label(key: u64) -> Label {
    Label::escaped(format!("{key:x}").as_bytes())
}

fn names(keys: &HotKeys, now: Time) -> Vec<String> {
    keys.hot(now)
        .iter()
        .map(|hot| hot.name.to_string())
        .collect()
}

/// Traffic at an even rate: so many percent for one key, the others all different.
struct Attack<'a> {
    keys: &'a HotKeys,
    others: Jitter,
    per_second: u64,
    now: u64,
    cold_called_hot: u32,
}

impl<'a> Attack<'a> {
    fn on(keys: &'a HotKeys, per_second: u64) -> Self {
        Self {
            keys,
            others: Jitter::seeded(5),
            per_second,
            now: 0,
            cold_called_hot: 0,
        }
    }

    /// Goes on for so long; returns when the key was first called hot, in microseconds of it.
    fn go(&mut self, millis: u64, percent: u64) -> Option<u64> {
        let start = self.now;
        let mut found = None;
        let mut due = 0;
        while self.now < start + millis * 1_000 {
            self.now += 1_000_000 / self.per_second;
            due += percent;
            if due >= 100 {
                due -= 100;
                let is_hot = self.keys.observe(HOT, || label(HOT), at(self.now));
                if is_hot.is_some() && found.is_none() {
                    found = Some(self.now - start);
                }
            } else {
                let other = self.others.draw();
                let is_hot = self.keys.observe(other, || label(other), at(self.now));
                self.cold_called_hot += u32::from(is_hot.is_some());
            }
        }
        found
    }

    fn is_hot(&self) -> bool {
        names(self.keys, at(self.now)) == [label(HOT).to_string()]
    }
}

#[test]
fn a_key_above_the_threshold_is_found_within_three_seconds_from_any_moment_on() {
    for quiet in (3_000..4_000).step_by(130) {
        let keys = keys(10);
        let mut traffic = Attack::on(&keys, 2_000);
        assert_eq!(traffic.go(quiet, 0), None);
        let found = traffic.go(4_000, 11);
        assert!(found.is_some_and(|micros| micros <= 3_000_000), "{found:?}");
        assert_eq!(traffic.cold_called_hot, 0);
    }
}

#[test]
fn a_million_other_keys_hide_nothing_and_none_of_them_is_called_hot() {
    let keys = keys(1);
    let mut attack = Attack::on(&keys, 200_000);
    attack.go(2_500, 0);
    let found = attack.go(2_500, 2);
    assert!(found.is_some_and(|micros| micros < 2_000_000), "{found:?}");
    assert_eq!(attack.cold_called_hot, 0);
    assert!(attack.is_hot());
}

#[test]
fn below_the_threshold_nothing_is_hot() {
    let keys = keys(10);
    let mut traffic = Attack::on(&keys, 1_000);
    assert_eq!(traffic.go(10_000, 9), None);
}

#[test]
fn a_hot_key_stays_hot_until_it_falls_to_half_of_the_threshold() {
    let keys = keys(10);
    let mut traffic = Attack::on(&keys, 1_000);
    traffic.go(3_000, 20);
    assert!(traffic.is_hot());
    traffic.go(10_000, 6);
    assert!(traffic.is_hot());
    traffic.go(4_000, 4);
    assert!(!traffic.is_hot());
    assert_eq!(traffic.go(10_000, 6), None);
}

#[test]
fn a_key_that_is_no_longer_asked_for_leaves_within_three_seconds() {
    let keys = keys(10);
    let mut traffic = Attack::on(&keys, 1_000);
    traffic.go(5_000, 50);
    assert!(traffic.is_hot());
    traffic.go(3_000, 0);
    assert!(!traffic.is_hot());
}

#[test]
fn when_all_traffic_ends_nothing_is_hot() {
    let keys = keys(10);
    let mut traffic = Attack::on(&keys, 1_000);
    traffic.go(5_000, 50);
    assert_eq!(
        names(&keys, at(traffic.now + 3_000_000)),
        Vec::<String>::new()
    );
}

#[test]
fn a_quiet_rule_has_no_hot_keys() {
    let slow = keys(10);
    assert_eq!(Attack::on(&slow, 15).go(30_000, 100), None);
    let busy = keys(10);
    assert!(Attack::on(&busy, 25).go(4_000, 100).is_some());
}

#[test]
fn a_name_is_asked_for_once_when_the_key_becomes_hot() {
    let keys = keys(10);
    let asked = Cell::new(0);
    let name = || {
        asked.set(asked.get() + 1);
        label(HOT)
    };
    let mut ids = Vec::new();
    for step in 0..200_u64 {
        ids.extend(keys.observe(HOT, name, at(step * 10_000)));
    }
    assert_eq!(asked.get(), 1);
    // Cold for a while, then hot again: another name, the same identity.
    for step in 600..900_u64 {
        ids.extend(keys.observe(HOT, name, at(step * 10_000)));
    }
    assert_eq!(asked.get(), 2);
    assert!(ids.iter().all(|id| id.hash() == HOT));
}

#[test]
fn a_name_that_cannot_be_made_leaves_nothing_behind() {
    let keys = keys(10);
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for step in 0..200_u64 {
            keys.observe(HOT, || panic!("no name"), at(step * 10_000));
        }
    }));
    assert!(broken.is_err());
    assert_eq!(names(&keys, at(2_000_000)), Vec::<String>::new());
    assert!(keys.hot(at(9_000_000)).is_empty());
    let is_hot = |inner: &Inner| inner.table.entry(HOT).is_some_and(|entry| entry.is_hot);
    assert!(!is_hot(&keys.lock()));
}

#[test]
fn the_status_shows_the_hottest_first_with_share_and_beginning() {
    let keys = keys(10);
    let mut since = None;
    for step in 0..3_000_u64 {
        // Ten parts: six for one key, three for another, one for all others.
        let key = match step % 10 {
            0..=5 => HOT,
            6..=8 => 7,
            _ => step << 40,
        };
        let now = at(step * 1_000);
        let id = keys.observe(key, || label(key), now);
        if key == HOT && id.is_some() {
            since.get_or_insert(now);
        }
    }
    let hot = keys.hot(at(2_999_000));
    assert_eq!(hot.len(), 2);
    assert_eq!((&hot[0].name, Some(hot[0].since)), (&label(HOT), since));
    assert!((hot[0].share - 0.6).abs() < 0.01 && (hot[1].share - 0.3).abs() < 0.01);
}

#[test]
fn the_status_is_bounded() {
    let keys = keys(1);
    let places = Jitter::seeded(3);
    let fifty: Vec<_> = (0..50).map(|_| places.draw()).collect();
    for step in 0..20_000 {
        let key = fifty[step % 50];
        keys.observe(key, || label(key), at(step as u64 * 100));
    }
    assert_eq!(keys.hot(at(2_000_000)).len(), HOT_KEYS_SHOWN);
}

#[test]
fn threads_count_together() {
    let keys = keys(10);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let keys = &keys;
            scope.spawn(move || {
                for step in 0..2_000_u64 {
                    let key = if step % 4 == 0 {
                        HOT
                    } else {
                        (thread * 2_000 + step) << 45
                    };
                    keys.observe(key, || label(key), at(step * 500));
                }
            });
        }
    });
    let hot = keys.hot(at(999_500));
    assert_eq!(hot.len(), 1);
    assert!((hot[0].share - 0.25).abs() < f64::EPSILON);
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let refusal = |hot_at_percent, min_per_second| {
        HotKeys::new(HotKeysSettings {
            hot_at_percent,
            min_per_second,
        })
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        refusal(0, 20),
        "hot keys: hotAtPercent is 0, allowed is 1 to 100"
    );
    assert_eq!(
        refusal(10, 0),
        "hot keys: minPerSecond is 0, allowed is 1 to 1000000"
    );
    let read: HotKeysSettings = serde_json::from_str(r#"{"hotAtPercent": 10}"#).unwrap();
    assert_eq!(read.min_per_second, 20);
}

proptest! {
    /// The reference keeps every request and judges by whole seconds.
    #[test]
    fn hot_is_only_what_is_hot_in_an_exact_count_and_few_keys_are_judged_exactly(
        requests in prop::collection::vec((0..20_u64, 0..40_u64, 0..40_u64), 200..1_500),
        percent in 5..50_u32,
        few: bool,
    ) {
        let keys = keys(percent);
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut was_hot: HashMap<u64, bool> = HashMap::new();
        let mut now = 0;
        for (step, a, b) in requests {
            now += step * 1_000;
            // All in one set of the table; eight of them have a place each.
            let key = if few { a.min(b) % 8 } else { a.min(b) };
            all.push((now, key));
            let oldest = (now / 1_000_000).saturating_sub(2) * 1_000_000;
            let within = all.iter().filter(|(then, _)| *then >= oldest);
            let (total, own) = within.fold((0, 0), |(total, own), (_, other)| {
                (total + 1, own + u64::from(*other == key))
            });
            let is_hot = keys.observe(key, || label(key), at(now)).is_some();
            prop_assert!(!is_hot || own * 200 > total * u64::from(percent));
            let enough = own >= 10 && own * 100 >= total * u64::from(percent);
            let turned = is_hot && was_hot.insert(key, is_hot) != Some(true);
            if few && enough && total >= 60 {
                prop_assert!(is_hot);
            }
            if turned {
                prop_assert!(own >= 10 && own * 100 >= total * u64::from(percent));
            }
            was_hot.insert(key, is_hot);
        }
        let shown = keys.hot(at(now + 3 * 1_000_000));
        prop_assert!(shown.is_empty());
    }
}
