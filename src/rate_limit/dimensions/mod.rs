//! Several named quotas on each call, of which all are charged or none.

mod builder;
mod builder_by_key;
mod closures;
mod dimension;
mod gate;
mod handle;
mod keyed;
mod layer;
mod limits;
mod observed;
mod shared;
mod state;

pub use builder::{DimensionsBuilder, PerKeyDimensions};
#[cfg(any(feature = "http", feature = "serde"))]
pub(crate) use closures::Settles;
pub use closures::{CostsOf, UnitCosts, Unsettled, UsesOf};
pub use dimension::Dimension;
pub use gate::DimensionsGate;
pub use handle::{DimensionSnapshot, DimensionsHandle, DimensionsSnapshot, DimensionsTotal};
pub use layer::{DimensionsLayer, KeyedDimensionsHandle, KeyedDimensionsLayer};
