//! The hash that a keyed limit knows a key by.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
};

use crate::{ambient::chance::Hashing, rate_limit::fleet_hasher::FleetHasher};

/// The hash of a key: 64 bits within a process, and 128 for a store.
///
/// Two words of eight bytes, and not one of sixteen, which would have to lie at a multiple of 16
/// and would make a call's future larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyHash([u64; 2]);

/// The function that hashes keys.
#[derive(Debug, Clone)]
pub(super) enum KeyHashing {
    /// The process's own, under a secret that was drawn at random.
    Own(Hashing),
    /// The same in all processes of a fleet: [`FleetHasher`].
    Fleet(FleetSecret),
}

/// The secret that a fleet's keys are hashed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FleetSecret(pub(super) [u8; 16]);

impl KeyHash {
    pub(super) const fn new(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The half that tells a process's own keys apart.
    #[inline]
    pub(super) fn index(self) -> u64 {
        self.0[0]
    }
}

impl KeyHashing {
    pub(super) fn of<K: Hash + ?Sized>(&self, key: &K) -> KeyHash {
        match self {
            Self::Own(hashing) => KeyHash::new([hashing.hash_one(key), 0]),
            Self::Fleet(secret) => secret.of(key),
        }
    }
}

impl FleetSecret {
    pub(super) fn of<K: Hash + ?Sized>(self, key: &K) -> KeyHash {
        let mut hasher = self.hasher();
        key.hash(&mut hasher);
        KeyHash::new(hasher.words())
    }

    pub(super) fn hasher(self) -> FleetHasher {
        FleetHasher::new(&self.0)
    }
}

impl Default for FleetSecret {
    /// Published, so that all processes have it. With it a guess of a key can be tested.
    fn default() -> Self {
        Self(*b"tower-keep fleet")
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret")
    }
}

/// 32 digits: the 16 bytes of the hash in their order.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.map(u64::swap_bytes);
        write!(f, "{first:016x}{second:016x}")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn a_fleet_knows_a_key_by_a_published_hash() {
        let secret = FleetSecret(std::array::from_fn(|place| u8::try_from(place).unwrap()));
        let mut hasher = secret.hasher();
        hasher.write(&[0]);
        let hash = KeyHash::new(hasher.words());
        assert_eq!(hash.to_string(), "da87c1d86b99af44347659119b22fc45");
        assert_eq!(
            KeyHashing::Fleet(secret).of("ann"),
            secret.of(&"ann".to_owned())
        );
    }

    #[test]
    fn the_default_secret_never_changes() {
        let of = |key: &str| FleetSecret::default().of(key).to_string();
        assert_eq!(of("ann"), "eba0ce30a03c35d17ef127a101c5e10b");
        assert_ne!(of("ann"), FleetSecret([7; 16]).of("ann").to_string());
    }
}
