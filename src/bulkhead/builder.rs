//! The builder.

use std::sync::Arc;

use crate::{
    ConfigError,
    algorithm::InFlight,
    bulkhead::{BulkheadGate, BulkheadHandle, BulkheadLayer, state::State},
    gate::GateLayer,
    protocol::Plain,
};

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
    /// At most `limit` calls at once. Half of the peak rate times the longest latency that callers
    /// wait for is a start: by Little's law, at the whole of it every answer comes just too late.
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
        self.gate().handle()
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
    /// A limit of 0, which would reject everything. `usize::MAX` is as good as none.
    pub fn build(self) -> Result<BulkheadLayer<P>, ConfigError> {
        let limit = checked(self.limit, self.name)?;
        let state = State {
            in_flight: InFlight::new(limit),
            enabled: self.enabled,
            name: self.name,
        };
        let gate = BulkheadGate {
            state: Arc::new(state),
        };
        Ok(GateLayer::with_protocol(gate, self.protocol))
    }
}

impl BulkheadBuilder {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<BulkheadGate, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

pub(super) fn checked(limit: usize, name: Option<&'static str>) -> Result<usize, ConfigError> {
    if limit == 0 {
        let fix = "allow at least 1 call at once";
        return Err(ConfigError::new("limit", limit, fix).of("bulkhead", name));
    }
    Ok(limit)
}
