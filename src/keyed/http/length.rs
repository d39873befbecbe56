//! A bound on the length of keys from unknown callers.

use std::{fmt::Write as _, hash::BuildHasher, sync::OnceLock};

use crate::ambient::chance::Hashing;

/// Shortens a key that is too long to its beginning and a digest, of at most [`MOST`] bytes in all.
/// `None` if the key may stay as it is.
///
/// The digest has 128 bits under secret random seeds, so that no caller can find two keys with the
/// same digest.
pub(super) fn shortened(key: &[u8]) -> Option<Vec<u8>> {
    if key.len() <= MOST {
        return None;
    }
    static SEEDS: OnceLock<[Hashing; 2]> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| [Hashing::new(), Hashing::new()]);
    let mut digest = String::from("~");
    for seed in seeds {
        // Writing to a string cannot fail.
        let _ = write!(digest, "{:016x}", seed.hash_one(key));
    }
    let beginning = &key[..MOST - digest.len()];
    Some([beginning, digest.as_bytes()].concat())
}

/// Longer than a host name (253) and than most names. It bounds the memory of the default of 1024
/// keys to a quarter of a megabyte.
pub(super) const MOST: usize = 256;
