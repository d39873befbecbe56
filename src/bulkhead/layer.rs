//! The layer and its builder.

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::InFlight,
    bulkhead::{Bulkhead, BulkheadHandle, handle::State},
    protocol::Plain,
    striped::Striped,
};

/// Limits how many calls run at once. All services it makes, and all their clones, share the one
/// limit.
#[derive(Debug)]
pub struct BulkheadLayer<P = Plain> {
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`BulkheadLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BulkheadBuilder<P = Plain> {
    limit: usize,
    enabled: bool,
    name: Option<&'static str>,
    protocol: P,
}

impl BulkheadLayer {
    /// At most `limit` calls at once: the peak rate times the latency that you accept, and some
    /// room (Little's law).
    pub fn builder(limit: usize) -> BulkheadBuilder {
        BulkheadBuilder {
            limit,
            enabled: true,
            name: None,
            protocol: Plain::new(),
        }
    }
}

impl<P> BulkheadLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> BulkheadHandle {
        BulkheadHandle::new(self.state.clone())
    }
}

impl<P> BulkheadBuilder<P> {
    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> BulkheadBuilder<Q> {
        BulkheadBuilder {
            limit: self.limit,
            enabled: self.enabled,
            name: self.name,
            protocol,
        }
    }

    /// Starts with nothing in flight.
    ///
    /// # Errors
    /// A limit of 0, which would refuse everything for ever. `usize::MAX` is as good as none.
    pub fn build(self) -> Result<BulkheadLayer<P>, ConfigError> {
        let state = State {
            in_flight: InFlight::new(checked(self.limit, self.name)?),
            enabled: self.enabled,
            name: self.name,
        };
        Ok(BulkheadLayer {
            state: Striped::new(state),
            protocol: self.protocol,
        })
    }
}

impl<P: Clone> Clone for BulkheadLayer<P> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, P: Clone> Layer<S> for BulkheadLayer<P> {
    type Service = Bulkhead<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Bulkhead::new(inner, self.state.clone(), self.protocol.clone())
    }
}

pub(super) fn checked(limit: usize, name: Option<&'static str>) -> Result<usize, ConfigError> {
    if limit == 0 {
        return Err(
            ConfigError::new("limit", limit, "allow at least 1 call at once").of("bulkhead", name),
        );
    }
    Ok(limit)
}
