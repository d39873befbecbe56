//! A value on cache lines of its own.

use std::ops::Deref;

/// A value on its own two lines of 64 bytes, because processors prefetch lines in pairs. Writes to
/// neighboring data do not slow it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
