//! Nothing: the comparisons are in `benches/peers.rs`.
