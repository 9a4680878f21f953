//! When this guard last counted whom, as far as it remembers.
//!
//! Tickets are shown again: by a browser that sends several requests at once, by an app that keeps an
//! old one, by somebody who wants to count as many. What is remembered lets each be counted once.

use crate::KeySeed;
use crate::ticket::{Place, Wall};

use super::census::mix;

/// Places that share a part of the memory. Of eight, with four times as many as there are people, one
/// part in 4,000 is asked to hold more.
const WAYS: usize = 8;

/// Ways for each person who may be in: see [`WAYS`].
const WAYS_EACH: u64 = 4;

/// So many people in a set, on average, are as many as there should be: see [`WAYS_EACH`].
const PEOPLE_EACH: usize = WAYS / 4;

/// What a memory begins with: half a page. A room that few visit takes no more, whatever it may hold.
const SETS_LEAST: usize = 16;

/// What the smallest memory grows to: what a browser's burst needs, which is over in a second, of the people whom a
/// busy guard counts in it. 64 kB.
pub(super) const SLOTS_MIN: u64 = 4096;

/// The largest, 2 MiB for each room: all people of a room for 32,000. In a larger one those are
/// forgotten first who were counted longest ago, and that is harmless but for tickets shown again.
const SLOTS_MAX: u64 = 131_072;

/// Who was counted last when.
#[derive(Debug)]
pub(super) struct Memory {
    /// Nobody outside can choose places that meet in one part.
    key: KeySeed,
    /// None before somebody is counted, and twice as many whenever they are full.
    sets: Vec<[Slot; WAYS]>,
    sets_max: usize,
    used: usize,
}

/// One place; free ones were seen in 1970.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    print: u64,
    seen: Wall,
}

/// What a room derives from its seed, which is not to be found out from what is told to anybody.
pub(super) fn secret(seed: u64) -> KeySeed {
    let halves = [seed.to_le_bytes(), mix(seed).to_le_bytes()];
    let mut key = [0; 16];
    for (byte, drawn) in key.iter_mut().zip(halves.into_iter().flatten()) {
        *byte = drawn;
    }
    KeySeed::new(key)
}

/// How many slots a room for so many people needs.
pub(super) fn slots(people: u64) -> u64 {
    people.saturating_mul(WAYS_EACH).clamp(SLOTS_MIN, SLOTS_MAX)
}

impl Memory {
    pub(super) fn new(slots: u64, key: KeySeed) -> Self {
        let slots = usize::try_from(slots).unwrap_or(WAYS);
        Self {
            key,
            sets: Vec::new(),
            sets_max: (slots / WAYS).max(1),
            used: 0,
        }
    }

    /// An empty one of another size.
    pub(super) fn emptied(&self, slots: u64) -> Self {
        Self::new(slots, self.key)
    }

    /// When somebody was counted last, if that is remembered.
    pub(super) fn seen(&self, place: Place) -> Option<Wall> {
        let print = self.print(place);
        let set = self.sets.get(self.index(print))?;
        let slot = set.iter().find(|slot| slot.print == print)?;
        Some(slot.seen)
    }

    /// Somebody is counted. If there is no room, who was counted longest ago is forgotten.
    pub(super) fn note(&mut self, place: Place, wall: Wall) {
        let print = self.print(place);
        self.grow();
        self.put(Slot { print, seen: wall });
    }

    fn put(&mut self, new: Slot) {
        let index = self.index(new.print);
        let Some(set) = self.sets.get_mut(index) else {
            return;
        };
        let oldest = |slot: &&mut Slot| (slot.print != new.print, slot.seen);
        if let Some(slot) = set.iter_mut().min_by_key(oldest) {
            self.used += usize::from(slot.seen == Wall::default());
            *slot = new;
        }
    }

    /// Makes room for one more, as long as there may be more.
    fn grow(&mut self) {
        let now = self.sets.len();
        if now >= self.sets_max || self.used < now * PEOPLE_EACH {
            return;
        }
        let more = (2 * now).max(SETS_LEAST).min(self.sets_max);
        let kept = std::mem::replace(&mut self.sets, vec![[Slot::default(); WAYS]; more]);
        self.used = 0;
        for slot in kept.into_iter().flatten() {
            if slot.seen != Wall::default() {
                self.put(slot);
            }
        }
    }

    fn print(&self, place: Place) -> u64 {
        let arrival = place.arrival.as_millis().to_le_bytes();
        let (guard, serial) = (place.guard.0.to_le_bytes(), place.serial.to_le_bytes());
        let parts: [&[u8]; 3] = [&arrival, &guard, &serial];
        self.key.hash(parts).as_u64()
    }

    fn index(&self, print: u64) -> usize {
        let sets = u64::try_from(self.sets.len()).unwrap_or(u64::MAX).max(1);
        usize::try_from(print % sets).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::GuardId;

    fn place(serial: u32) -> Place {
        Place {
            arrival: Wall::from_millis(1_790_000_000_000),
            guard: GuardId(7),
            serial,
        }
    }

    #[test]
    fn a_memory_for_so_many_people_forgets_one_in_thousands_of_them() {
        let people = 10_000;
        let mut memory = Memory::new(slots(people), secret(1));
        for serial in 0..10_000 {
            memory.note(place(serial), Wall::from_millis(u64::from(serial) + 1));
        }
        let kept = |serial: &u32| {
            memory.seen(place(*serial)) == Some(Wall::from_millis(u64::from(*serial) + 1))
        };
        let kept = (0..10_000).filter(kept).count();
        assert!(kept >= 9_990, "{kept}");
    }

    #[test]
    fn who_was_counted_longest_ago_is_forgotten_first_and_who_comes_back_takes_one_slot() {
        let mut memory = Memory::new(1, secret(1));
        for serial in 0..8 {
            memory.note(place(serial), Wall::from_millis(u64::from(serial) + 1));
        }
        memory.note(place(0), Wall::from_millis(100));
        memory.note(place(8), Wall::from_millis(101));
        assert_eq!(memory.seen(place(0)), Some(Wall::from_millis(100)));
        assert_eq!(memory.seen(place(1)), None);
        assert!((2..=8).all(|serial| memory.seen(place(serial)).is_some()));
    }

    #[test]
    fn rooms_of_another_seed_have_their_places_elsewhere() {
        let (one, other) = (Memory::new(1, secret(1)), Memory::new(1, secret(2)));
        assert_ne!(one.print(place(1)), other.print(place(1)));
        assert_ne!(one.print(place(1)), one.print(place(2)));
    }

    #[test]
    fn a_memory_takes_as_much_as_there_are_people() {
        let mut memory = Memory::new(SLOTS_MAX, secret(1));
        assert_eq!(memory.sets.capacity(), 0, "nobody came yet");
        for serial in 0..100 {
            memory.note(place(serial), Wall::from_millis(u64::from(serial) + 1));
            memory.note(place(serial), Wall::from_millis(u64::from(serial) + 1));
        }
        assert_eq!((memory.used, memory.sets.len()), (100, 64));
        assert!((0..100).all(|serial| memory.seen(place(serial)).is_some()));
    }

    #[test]
    fn the_memory_of_a_room_is_bounded_however_many_may_be_in() {
        assert_eq!(slots(1), SLOTS_MIN);
        assert_eq!(slots(u64::MAX), SLOTS_MAX);
        let bytes = usize::try_from(SLOTS_MAX).unwrap() * size_of::<Slot>();
        assert_eq!(bytes, 2 << 20);
    }
}
