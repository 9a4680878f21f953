//! Keys as numbers that nobody outside can choose.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// What makes the hashes of one process its own. Who does not know it cannot find keys that meet.
#[derive(Clone, Copy)]
pub struct KeySeed([u8; 16]);

impl KeySeed {
    /// A seed of 128 random bits, which the caller has drawn.
    pub const fn new(seed: [u8; 16]) -> Self {
        Self(seed)
    }

    /// The hash of a key that has these parts, whatever bytes they are.
    ///
    /// Every part goes in with its length, so `["ab", "c"]`, `["a", "bc"]` and `["abc"]` are three
    /// keys.
    pub fn hash<P: AsRef<[u8]>>(&self, parts: impl IntoIterator<Item = P>) -> KeyHash {
        let mut gathered = Gathered::new(self);
        for part in parts {
            gathered.add(part.as_ref());
        }
        gathered.hash()
    }

    /// The same; none if one of the parts is missing.
    pub fn hash_all<P: AsRef<[u8]>>(
        &self,
        parts: impl IntoIterator<Item = Option<P>>,
    ) -> Option<KeyHash> {
        let mut gathered = Gathered::new(self);
        for part in parts {
            gathered.add(part?.as_ref());
        }
        Some(gathered.hash())
    }
}

/// Bytes of a key that are hashed in one go, which takes half of the time; nearly all keys are shorter.
const AT_ONCE: usize = 96;

/// The parts of a key, one after the other.
struct Gathered<'a> {
    seed: &'a KeySeed,
    bytes: [u8; AT_ONCE],
    used: usize,
    /// What became of them when they got too many.
    hasher: Option<SipHasher13>,
}

impl<'a> Gathered<'a> {
    fn new(seed: &'a KeySeed) -> Self {
        Self {
            seed,
            bytes: [0; AT_ONCE],
            used: 0,
            hasher: None,
        }
    }

    fn add(&mut self, part: &[u8]) {
        let length = part.len().to_le_bytes();
        let text = self.used + length.len();
        let end = text + part.len();
        if self.hasher.is_none() && end <= AT_ONCE {
            self.bytes[self.used..text].copy_from_slice(&length);
            self.bytes[text..end].copy_from_slice(part);
            self.used = end;
            return;
        }
        let hasher = self.hasher.get_or_insert_with(|| {
            let mut hasher = SipHasher13::new_with_key(&self.seed.0);
            hasher.write(&self.bytes[..self.used]);
            hasher
        });
        hasher.write(&length);
        hasher.write(part);
    }

    fn hash(&self) -> KeyHash {
        let at_once = || SipHasher13::new_with_key(&self.seed.0).hash(&self.bytes[..self.used]);
        let streamed = self.hasher.as_ref().map(Hasher::finish);
        KeyHash(streamed.unwrap_or_else(at_once))
    }
}

impl fmt::Debug for KeySeed {
    /// The seed is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed(..)")
    }
}

/// A key, hashed by a [`KeySeed`]. Of 100,000 keys, two are taken for one with a chance of 1 in 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// All its bits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The half that chooses where it lies.
    pub(super) fn place(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("half of 64 bits")
    }

    /// The half that tells it from others there.
    pub(super) fn tag(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("half of 64 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_only_read_alike_are_told_apart() {
        let seed = KeySeed::new([7; 16]);
        let keys: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"", b""],
            &[b"abc"],
            &[b"ab", b"c"],
            &[b"a", b"bc"],
            &[b"a", b"bc", b""],
            &[b"\xff\xfe\x00"],
        ];
        let mut hashes = keys.map(|parts| seed.hash(parts)).to_vec();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), keys.len());
    }

    proptest::proptest! {
        #[test]
        fn a_hash_is_the_same_however_many_bytes_go_in_at_once(
            parts in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..70), 0..4),
        ) {
            let mut streamed = SipHasher13::new_with_key(&[7; 16]);
            for part in &parts {
                streamed.write(&part.len().to_le_bytes());
                streamed.write(part);
            }
            let seed = KeySeed::new([7; 16]);
            let hash = KeyHash(streamed.finish());
            proptest::prop_assert_eq!(seed.hash(&parts), hash);
            proptest::prop_assert_eq!(seed.hash_all(parts.iter().map(Some)), Some(hash));
        }
    }

    #[test]
    fn another_seed_is_another_hash_and_no_seed_is_shown() {
        let one = KeySeed::new([1; 16]);
        assert_eq!(one.hash(["key"]), one.hash([b"key"]));
        let mut other = [1; 16];
        other[15] = 2;
        assert_ne!(one.hash(["key"]), KeySeed::new(other).hash(["key"]));
        assert_eq!(format!("{one:?}"), "KeySeed(..)");
    }
}
