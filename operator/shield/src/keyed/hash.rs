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
        let mut hasher = SipHasher13::new_with_key(&self.0);
        for part in parts {
            add(&mut hasher, part.as_ref());
        }
        KeyHash(hasher.finish())
    }

    /// The same; none if one of the parts is missing.
    pub fn hash_all<P: AsRef<[u8]>>(
        &self,
        parts: impl IntoIterator<Item = Option<P>>,
    ) -> Option<KeyHash> {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        for part in parts {
            add(&mut hasher, part?.as_ref());
        }
        Some(KeyHash(hasher.finish()))
    }
}

fn add(hasher: &mut SipHasher13, part: &[u8]) {
    hasher.write(&part.len().to_le_bytes());
    hasher.write(part);
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
