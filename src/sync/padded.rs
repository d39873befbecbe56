//! A value on cache lines of its own.

use std::ops::Deref;

/// Keeps writes beside it away: two lines of 64 bytes, because processors prefetch lines in
/// pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
