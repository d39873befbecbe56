//! What a timer is set to.

/// A time, and which of all settings it is: of two, that of the later edition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) edition: u64,
    pub(super) at: u64,
}
