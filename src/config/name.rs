//! The names of instances.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The name of a layer, in errors, metrics and events: a literal, or a `String` that was read from
/// a configuration.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::timeout::TimeoutLayer;
///
/// let upstream = String::from("search"); // from a file
/// let timeout = TimeoutLayer::builder(Duration::from_secs(1)).name(upstream).build()?;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
///
/// A string is kept for the lifetime of the process, once for all layers with that name. At most
/// 1024 strings are kept, so that names made from requests do not fill the memory. Any later one is
/// replaced by `"too many names"`. Literals are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(&'static str);

impl Name {
    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self(name)
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name.as_str()) {
            return Self(known);
        }
        if names.len() >= MAX_NAMES {
            return Self("too many names");
        }
        let kept: &'static str = String::leak(name);
        names.insert(kept);
        Self(kept)
    }
}

const MAX_NAMES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_kept_once_and_not_without_end() {
        let name = |name: &str| Name::from(name.to_owned()).as_str();
        assert!(std::ptr::eq(name("search"), name("search")));
        let names: Vec<_> = (0..2000).map(|number| name(&number.to_string())).collect();
        assert_eq!((names[0], names[1999]), ("0", "too many names"));
        assert_eq!(name("search"), "search");
        assert_eq!(Name::from("a literal").as_str(), "a literal");
    }
}
