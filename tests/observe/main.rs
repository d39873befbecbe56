//! What layers tell: metrics, events, snapshots, and the recipes for tuning.

#[cfg(feature = "metrics")]
mod keys;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "serde")]
mod snapshots;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(feature = "metrics")]
mod tuning;
