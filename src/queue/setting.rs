//! The setting of a timer.

/// A time and an edition. Of two settings, the one with the later edition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) edition: u64,
    pub(super) at: u64,
}
