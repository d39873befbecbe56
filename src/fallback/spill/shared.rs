//! The state that all clones of a list share.

use std::{sync::Arc, time::Duration};

use tower::BoxError;

use super::{backend::Backend, state::State};
use crate::algorithm::Budget;

pub(super) type Wanted<Res> = Arc<dyn Fn(Result<&Res, &BoxError>) -> bool + Send + Sync>;

/// The state that all clones share.
pub(super) struct Shared<P, R, Res> {
    pub(super) protocol: P,
    pub(super) backends: Vec<Backend<R, Res>>,
    pub(super) wanted: Option<Wanted<Res>>,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) total: Option<Duration>,
    pub(super) state: Arc<State>,
}
