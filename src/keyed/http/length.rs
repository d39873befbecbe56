//! Keys of strangers, which may be of any length.

use std::{fmt::Write as _, hash::BuildHasher, sync::OnceLock};

use crate::ambient::chance::Hashing;

/// What is kept of a key that is too long: its beginning and a digest, of at most [`MOST`] bytes in
/// all. `None` of one that may stay as it is.
///
/// The digest has 128 bits under seeds that nobody knows, so that no stranger finds two keys that
/// are one.
pub(super) fn shortened(key: &[u8]) -> Option<Vec<u8>> {
    if key.len() <= MOST {
        return None;
    }
    static SEEDS: OnceLock<[Hashing; 2]> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| [Hashing::new(), Hashing::new()]);
    let mut digest = String::from("~");
    for seed in seeds {
        // To a string it cannot fail.
        let _ = write!(digest, "{:016x}", seed.hash_one(key));
    }
    let beginning = &key[..MOST - digest.len()];
    Some([beginning, digest.as_bytes()].concat())
}

/// More than a host name has (253), and than most that names somebody. It bounds what the default
/// of 1024 keys can take: a quarter of a megabyte.
pub(super) const MOST: usize = 256;
