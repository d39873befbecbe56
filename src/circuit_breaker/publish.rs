//! The publication of transitions, and the circuit's view in the registry.

use std::time::Duration;

use crate::{
    RejectedKind,
    algorithm::{BreakerState, Transition},
    ambient::clock::common_now,
    circuit_breaker::{
        all::Shown,
        explained::{CircuitChange, rejects, threshold},
        state::State,
        transition_log::despite_panics,
    },
    observe::KeyState,
};

impl State {
    /// Publishes a transition after a permit came back. If the permit was a probe, its slot may be
    /// free.
    #[cold]
    pub(super) fn given_back(&self, transition: Option<Transition>) {
        if transition.is_none() {
            self.wake();
        }
        self.publish(transition);
    }

    pub(super) fn publish(&self, transition: Option<Transition>) {
        if let Some(mut transition) = transition {
            transition.at = Duration::from_nanos(self.clock.now());
            transition.rejected = Some(self.rejections());
            // Counted first. The rest runs user code: wakers, and a subscriber of traces.
            let (entered, subscribers) = self.transitions.enter(transition);
            self.all.count(&transition);
            let changes = entered.iter().map(|transition| self.explained(transition));
            let changes: Vec<_> = changes.collect();
            changes.iter().for_each(|change| self.all.remember(change));
            let wake = || self.wake();
            let tell = || despite_panics(changes.iter().map(|change| || self.all.tell(change)));
            let rest: [&dyn Fn(); 3] = [&wake, &|| subscribers.wake(), &tell];
            despite_panics(rest);
        }
    }

    /// Returns a transition with its explanation.
    fn explained(&self, transition: &Transition) -> CircuitChange {
        let is_open = transition.to == BreakerState::Open;
        let open_for = || self.breaker.until_half_open(self.clock.now());
        CircuitChange {
            key: self.key.clone(),
            transition: *transition,
            threshold: threshold(&self.config(), transition),
            open_for: is_open.then(open_for).flatten(),
            moment: common_now(),
        }
    }

    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Returns how many calls the circuit has rejected since it was created.
    fn rejections(&self) -> u64 {
        self.tally.totals().rejected.of(RejectedKind::CircuitOpen)
    }
}

impl State {
    pub(super) fn key_state(&self) -> KeyState {
        KeyState::Circuit {
            state: self.breaker.state(),
            open_for: self.open_for().map(|since| since.as_secs_f64()),
            window: self.counts(),
        }
    }

    /// Returns how long ago the circuit left closed, if it is open or half-open.
    pub(super) fn open_for(&self) -> Option<Duration> {
        let is_open = rejects(self.breaker.state());
        // The log may be a step behind the circuit.
        let opened = self.transitions.opened().unwrap_or_default();
        let now = Duration::from_nanos(self.clock.now());
        (is_open && self.settings.enabled).then(|| now.saturating_sub(opened))
    }
}
