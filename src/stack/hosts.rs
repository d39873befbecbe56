//! The hosts of a client's stack: their number and their display.

use std::{fmt, sync::Arc};

use crate::keyed::{ByKey, HasKey, Host, KeySettings};

/// The settings of a client's hosts.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    pub(super) show: Option<Show>,
    /// The settings of each part that has a state per host.
    pub(super) keys: KeySettings,
}

/// Makes the text of a host.
type Show = Arc<dyn Fn(&Host) -> String + Send + Sync>;

impl Hosts {
    /// Returns keys that `W` finds, with these texts.
    pub(super) fn by<W: HasKey<Key = Host>>(&self, host: W) -> ByKey<W> {
        let mut by = ByKey::new(host);
        if let Some(show) = self.show.clone() {
            by.texts.show(move |host| show(host));
        }
        by
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("are_shown", &self.show.is_some())
            .field("keys", &self.keys)
            .finish()
    }
}
