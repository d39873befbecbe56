//! Checks of settings that cannot change, or are required.

use std::fmt::Debug;

use crate::ConfigError;

/// Fails if a setting differs that is fixed once a layer is built.
pub(super) fn same<T: PartialEq + Debug>(
    layer: &'static str,
    field: &'static str,
    before: &T,
    after: &T,
) -> Result<(), ConfigError> {
    if before == after {
        return Ok(());
    }
    Err(ConfigError::new(field, after, FIXED).of(layer, None))
}

/// Does the same as [`same`] for a setting that has its own fields or names.
pub(super) fn same_part<T: PartialEq>(
    layer: &'static str,
    field: &'static str,
    before: &T,
    after: &T,
) -> Result<(), ConfigError> {
    if before == after {
        return Ok(());
    }
    let different = format_args!("different");
    Err(ConfigError::new(field, different, FIXED).of(layer, None))
}

pub(super) fn required<T: Debug>(
    layer: &'static str,
    field: &'static str,
    value: Option<T>,
    fix: &'static str,
) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::new(field, None::<T>, fix).of(layer, None))
}

const FIXED: &str =
    "change it back, or start the process again: it is fixed when the layer is built";
