//! The layer's data for the registry.

use crate::{
    fault::state::{LAYER, State},
    observe::{self, Instance, Observed},
};

impl Observed for State {
    fn layer(&self) -> &'static str {
        LAYER
    }

    fn name(&self) -> Option<&'static str> {
        self.name
    }

    fn observe(&self) -> Instance {
        let now = self.snapshot();
        let flag = |flag: bool| if flag { 1.0 } else { 0.0 };
        let config = vec![
            ("enabled", flag(now.policy.enabled)),
            ("max_active", now.policy.max_active as f64),
            ("shadow", flag(now.policy.shadow)),
        ];
        let state = observe::State::Faults {
            running: now.remaining.is_some(),
            reason: now.reason,
            active: now.active as u64,
            injected: now.injected.into_iter().collect(),
            would_inject: now.would_inject.into_iter().collect(),
            spared: now.spared,
        };
        Instance::of((LAYER, self.name), config, state)
    }
}
