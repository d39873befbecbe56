//! The registry that a page shows.

use std::sync::Arc;

use crate::observe::Registry;

/// The registry of a page: the global one, or your own.
#[derive(Debug, Clone)]
pub struct PageRegistry(Whose);

#[derive(Debug, Clone)]
enum Whose {
    Global(&'static Registry),
    Own(Arc<Registry>),
}

impl PageRegistry {
    pub(super) fn registry(&self) -> &Registry {
        match &self.0 {
            Whose::Global(registry) => registry,
            Whose::Own(registry) => registry,
        }
    }
}

impl From<&'static Registry> for PageRegistry {
    fn from(registry: &'static Registry) -> Self {
        Self(Whose::Global(registry))
    }
}

impl From<Arc<Registry>> for PageRegistry {
    fn from(registry: Arc<Registry>) -> Self {
        Self(Whose::Own(registry))
    }
}

impl From<&Arc<Registry>> for PageRegistry {
    fn from(registry: &Arc<Registry>) -> Self {
        Self(Whose::Own(registry.clone()))
    }
}
