//! The remaining units of a limit with several quotas.

/// The remaining units of one of several quotas, as listed in a [rejection](super::Rejected::left).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// The dimension's name.
    pub dimension: &'static str,
    /// The units that would be admitted now.
    pub available: u64,
    /// The units that are ever admitted at once.
    pub burst: u64,
    /// If true, the quota is that of all keys together.
    pub is_total: bool,
}

impl Left {
    #[cfg(feature = "layers")]
    pub(crate) fn new(dimension: &'static str, units: (u64, u64), is_total: bool) -> Self {
        Self {
            dimension,
            available: units.0,
            burst: units.1,
            is_total,
        }
    }
}
