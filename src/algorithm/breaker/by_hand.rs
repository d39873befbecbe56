//! What somebody asks for from outside.

use crate::{
    algorithm::breaker::{
        Breaker, BreakerConfig, BreakerState, Cause, JUDGE_NEXT, Transition, control::Control,
        settings::Settings,
    },
    config::ConfigError,
    sync::Ordering,
};

impl Breaker {
    /// Refuses everything from now on. `None` if it did already.
    pub fn force_open(&self) -> Option<Transition> {
        self.enter_state(BreakerState::ForcedOpen)
    }

    /// Lets everything through from now on, uncounted. `None` if it did already.
    pub fn disable(&self) -> Option<Transition> {
        self.enter_state(BreakerState::Disabled)
    }

    /// Lets everything through from now on, counted, and never opens. `None` if it did already.
    pub fn metrics_only(&self) -> Option<Transition> {
        self.enter_state(BreakerState::MetricsOnly)
    }

    /// Closes with an empty window and without a ramp. `None` if it was closed already, and keeps
    /// its window.
    pub fn close(&self) -> Option<Transition> {
        self.enter_state(BreakerState::Closed)
    }

    /// Starts over, closed: forgets the window, the streak of a growing open time and what the peer
    /// asked for. The generation goes on, so that results still out cannot disturb it.
    pub fn reset(&self) -> Option<Transition> {
        self.hints.clear();
        self.change(|control| Some(control.settle(BreakerState::Closed)))
    }

    /// Takes other settings, and keeps state and window, which the next result is judged by. An
    /// open time that has begun ends when it was to end.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the window, or what a slow call is, would change: the counts
    /// depend on them. Nothing has changed then.
    pub fn update(&self, config: &BreakerConfig) -> Result<(), ConfigError> {
        self.check(config)?;
        self.settings.store(Settings::new(config)?);
        self.watch.store(JUDGE_NEXT, Ordering::SeqCst);
        Ok(())
    }

    /// Whether [`update`](Self::update) would take these settings. Changes nothing.
    ///
    /// # Errors
    /// As it.
    pub fn check(&self, config: &BreakerConfig) -> Result<(), ConfigError> {
        self.foundation.permits(config)?;
        Settings::new(config).map(drop)
    }

    fn enter_state(&self, state: BreakerState) -> Option<Transition> {
        self.change(|control| (control.state() != state).then(|| control.settle(state)))
    }

    fn change(&self, next: impl Fn(Control) -> Option<Control>) -> Option<Transition> {
        let mut control = self.load();
        loop {
            let settled = next(control)?;
            match self.swap(control, settled) {
                Ok(()) => {
                    return Some(control.transition(settled, Cause::ByHand, control.counts()));
                }
                // The state moved on meanwhile; what was asked for holds for the new one as well.
                Err(current) => control = current,
            }
        }
    }
}
