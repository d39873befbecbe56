//! The display of hosts of a client's stack.

use std::{fmt, sync::Arc};

use crate::keyed::{ByKey, HasKey, Host};

/// The display of a client's hosts.
#[derive(Clone, Default)]
pub(super) struct ShownHosts {
    pub(super) show: Option<Show>,
    pub(super) labels: Option<usize>,
}

/// Makes the text of a host.
type Show = Arc<dyn Fn(&Host) -> String + Send + Sync>;

impl ShownHosts {
    /// Returns keys that `W` finds, with these texts.
    pub(super) fn by<W: HasKey<Key = Host>>(&self, host: W) -> ByKey<W> {
        let mut by = ByKey::new(host);
        if let Some(show) = self.show.clone() {
            by.texts.show(move |host| show(host));
        }
        by
    }
}

impl fmt::Debug for ShownHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownHosts")
            .field("are_shown", &self.show.is_some())
            .field("labels", &self.labels)
            .finish()
    }
}
