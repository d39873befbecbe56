//! The settings of what a fleet shares, and the start of the part that asks the store.

use std::sync::Arc;

use crate::{
    ConfigError, Name,
    ambient::clock::Clock,
    rate_limit::{
        Outage,
        fleet::{Fleet, FleetSettings},
        key_hash::FleetSecret,
        settings::Settings,
    },
    store::Store,
};

/// The store, and what is set beside it.
#[derive(Debug, Default)]
pub(super) struct FleetValues {
    settings: Option<FleetSettings>,
    pub(super) outage: Option<Outage>,
    pub(super) secret: Option<FleetSecret>,
}

impl FleetValues {
    /// Names the store, without keeping its type.
    pub(super) fn share<S: Store + Clone>(&mut self, store: &S, name: Name) {
        self.settings = Some(FleetSettings {
            store: Arc::new(store.clone()),
            name: name.as_str(),
        });
    }

    /// The part that asks the store, if the limit is shared. Calls then wait for it a little by
    /// default: else the first one of each key would be rejected.
    pub(super) fn start(
        &self,
        settings: &mut Settings,
        clock: Clock,
    ) -> Result<Option<Arc<Fleet>>, ConfigError> {
        let outage = self.outage.unwrap_or_default();
        let Some(fleet) = &self.settings else {
            let fix = "name a store with `fleet`, or leave it";
            return match (self.outage, self.secret) {
                (None, None) => Ok(None),
                (None, Some(_)) => Err(ConfigError::new("fleet_secret", "set", fix)),
                (Some(_), _) => Err(ConfigError::new("while_down", outage, fix)),
            };
        };
        if let Some(follow) = settings.follow {
            let fix = "follow a quota with a limit of this process alone, around this one";
            return Err(ConfigError::new("follow", follow.quota(), fix));
        }
        if settings.max_wait.is_none() && !settings.deadlines {
            settings.max_wait = Some(WAIT);
        }
        let secret = self.secret.unwrap_or_default();
        Fleet::new(fleet, secret, outage, clock).map(|fleet| Some(Arc::new(fleet)))
    }
}

/// The default wait of calls of a fleet, in nanoseconds. It is enough for an answer, and for the
/// 200 ms after which a burst of one unit is first granted.
const WAIT: u64 = 250_000_000;
