//! What the comparisons in `benches/` are made of: two inner services, and the same stack of five
//! from several crates.

pub mod leaf;
pub mod mixed;
pub mod rejected;
pub mod stacks;
