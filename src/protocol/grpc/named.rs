//! Layered services keep their names, so that they still go into `Server::add_service`.

use tonic::server::NamedService;

use crate::{gate::Gated, retry::Retry, timeout::Timeout};

impl<S: NamedService, G, P> NamedService for Gated<S, G, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, P> NamedService for Timeout<S, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, P> NamedService for Retry<S, P> {
    const NAME: &'static str = S::NAME;
}
