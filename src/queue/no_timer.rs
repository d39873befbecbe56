//! A timer that does nothing, for the models, which have no runtime.

use super::setting::Setting;

#[derive(Debug)]
pub(crate) struct Timer;

impl Timer {
    pub(super) fn set(&self, _: Setting) {}
}
