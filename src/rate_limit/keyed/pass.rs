//! The units that a call has taken of its key's limit.

use crate::rate_limit::key_hash::KeyHash;

/// The units that a call has taken of its key's limit. The default has taken nothing, and no limit
/// applies to it.
///
/// Flat, because an `Option` of the two would be 8 bytes larger.
#[derive(Debug, Default)]
pub struct KeyLimitPass {
    pub(super) hash: KeyHash,
    pub(super) units: u32,
    pub(super) counted: bool,
}

impl KeyLimitPass {
    pub(super) fn of(hash: KeyHash, units: u32) -> Self {
        Self {
            hash,
            units,
            counted: true,
        }
    }
}
