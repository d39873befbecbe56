//! Changes of state and settings by hand.

use crate::{
    algorithm::breaker::{
        Breaker, BreakerConfig, BreakerState, Cause, Counter, JUDGE_NEXT, Transition,
        ages::Ages,
        control::Control,
        settings::{Foundation, Length, Settings},
    },
    config::ConfigError,
    sync::Ordering,
};

impl Breaker {
    /// Rejects every call from now on. Returns `None` if it did already.
    pub fn force_open(&self) -> Option<Transition> {
        self.enter_state(BreakerState::ForcedOpen)
    }

    /// Admits every call from now on, uncounted. Returns `None` if it did already.
    pub fn disable(&self) -> Option<Transition> {
        self.enter_state(BreakerState::Disabled)
    }

    /// Admits and counts every call from now on, and never opens. Returns `None` if it did already.
    pub fn metrics_only(&self) -> Option<Transition> {
        self.enter_state(BreakerState::MetricsOnly)
    }

    /// Closes with an empty window and without a ramp. Returns `None`, and keeps the window, if it
    /// was closed already.
    pub fn close(&self) -> Option<Transition> {
        self.enter_state(BreakerState::Closed)
    }

    /// Starts over, closed: forgets the window, the streak of a growing open time and the
    /// upstream's hints. The generation continues to rise, so results of calls in flight cannot
    /// disturb it.
    pub fn reset(&self) -> Option<Transition> {
        self.hints.clear();
        self.change(|control| Some(control.settle(BreakerState::Closed)))
    }

    /// Changes the settings, and keeps state and window. The next result judges the window by the
    /// new settings. An open time that has begun ends as it would have.
    ///
    /// With another length of the window, or another time for slow calls, the counts lose their
    /// meaning. The window restarts, and the results of calls in flight are late. For a state
    /// that counts, that is a transition to the same state. Updates must come one after the other.
    ///
    /// # Errors
    /// As for [`new`](Self::new). Also if a window of calls would change, or a window of time
    /// become one: its length is its memory. Nothing has changed then.
    pub fn update(&self, config: &BreakerConfig) -> Result<Option<Transition>, ConfigError> {
        let (foundation, settings) = self.checked(config)?;
        let watched = config.slow_calls.is_some();
        // An update that stops watching slow calls keeps their time, and so the window.
        let slow_after = watched.then_some(foundation.slow_after);
        let slow_after = slow_after.filter(|after| *after != self.slow_after());
        let length = match (&self.counter, foundation.window) {
            (Counter::Time(window), Length::Time(length)) if length != window.length() => {
                Some((window, length))
            }
            _ => None,
        };
        if let Some(after) = slow_after {
            self.slow_after.store(after, Ordering::Relaxed);
            let ages = self.ages.get_or_init(|| Ages::new(after, self.stripes));
            ages.set_slow_after(after);
        }
        if let Some((window, length)) = length {
            window.set_length(length);
        }
        self.settings.store(settings);
        let restarted = match slow_after.is_some() || length.is_some() {
            true => self.begin_anew(),
            false => None,
        };
        self.watch.store(JUDGE_NEXT, Ordering::SeqCst);
        Ok(restarted)
    }

    /// Checks whether [`update`](Self::update) would accept these settings. Changes nothing.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub fn check(&self, config: &BreakerConfig) -> Result<(), ConfigError> {
        self.checked(config).map(drop)
    }

    fn checked(&self, config: &BreakerConfig) -> Result<(Foundation, Settings), ConfigError> {
        let foundation = Foundation::new(config)?;
        let fits = match (&self.counter, foundation.window) {
            (Counter::Time(_), Length::Time(_)) => true,
            (Counter::Calls(window), Length::Calls(calls)) => window.length() == u64::from(calls),
            _ => false,
        };
        if !fits {
            let fix = "leave it, or build anew: only a window of time can change, to another time";
            return Err(ConfigError::new("window", config.window, fix));
        }
        Ok((foundation, Settings::new(config)?))
    }

    fn slow_after(&self) -> u64 {
        self.slow_after.load(Ordering::Relaxed)
    }

    /// Starts the next generation of a state that counts, with an empty window. The Release in
    /// `swap` publishes the new lengths. In a state that counts nothing, the word is exchanged for
    /// itself instead, so that whatever transition comes next has seen them.
    fn begin_anew(&self) -> Option<Transition> {
        let mut control = self.load();
        loop {
            let restarts = control.counts_calls();
            let next = if restarts { control.anew() } else { control };
            match self.swap(control, next) {
                Ok(()) => {
                    let counts = control.counts();
                    return restarts.then(|| control.transition(next, Cause::Updated, counts));
                }
                // A probe was admitted or came back, or there was a transition: try again.
                Err(current) => control = current,
            }
        }
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
                // The state has changed. The request holds for the new state as well.
                Err(current) => control = current,
            }
        }
    }
}
