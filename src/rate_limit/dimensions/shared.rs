//! Quotas that a fleet shares, by their names in the store.

use std::sync::Arc;

use super::{dimension::Dimension, limits::Limits, state::Quotaed};
use crate::{
    ConfigError,
    rate_limit::{
        fleet::{Fleet, FleetDimensions, FleetLimit, Quotas},
        key_hash::KeyHash,
    },
};

impl<const N: usize> Quotaed<N> {
    /// Quotas of this process, or of a fleet. The store knows one by the fleet's name, a dot, the
    /// dimension's name, and what follows.
    pub(super) fn of(
        dimensions: [Dimension; N],
        fleet: Option<&Arc<Fleet>>,
        follows: &str,
    ) -> Result<Self, ConfigError> {
        let Some(fleet) = fleet else {
            return Self::new(dimensions);
        };
        let mut limits = Vec::with_capacity(N);
        for dimension in &dimensions {
            let limit = dimension.shared(fleet, follows);
            limits.push(limit.map_err(|error| error.of("rate_limit", Some(dimension.name)))?);
        }
        let Ok(limits) = <[FleetLimit; N]>::try_from(limits) else {
            unreachable!("one for each dimension");
        };
        Ok(Self {
            dimensions,
            limits: Limits::Fleet(FleetDimensions::new(limits)),
        })
    }
}

impl Dimension {
    fn shared(&self, fleet: &Arc<Fleet>, follows: &str) -> Result<FleetLimit, ConfigError> {
        let Ok(burst) = u32::try_from(self.units()) else {
            let fix = "set a burst below 2^27, or count in larger units: a lease holds no more";
            return Err(ConfigError::new("burst", self.units(), fix));
        };
        let key = format!("{}.{}{follows}", fleet.name, self.name);
        let outage = self.outage.unwrap_or(fleet.outage);
        let quotas = Arc::new(Quotas::new(self.rate, burst)?);
        FleetLimit::with_outage(fleet, outage, (key.into(), KeyHash::default()), quotas)
    }
}
