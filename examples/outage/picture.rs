//! The timeline.
use crate::{measure::Drill, options::Options};
pub(crate) fn draw(_drill: &Drill, _options: &Options) -> String { String::new() }
