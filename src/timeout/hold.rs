//! A call's hold on the state of its timeout.

use std::sync::Arc;

use crate::{
    Rejected, RejectedKind,
    observe::Tally,
    sync::Held,
    timeout::{
        covers::TimerShare,
        number,
        state::{StackStripe, State},
    },
};

/// A call's hold on the state of its timeout.
///
/// A reference would cost a call two locked instructions. Nearly all calls end in time, and then
/// most need nothing of the state. So such a call keeps a number, by which it finds the state when
/// its time is over.
pub(super) struct Hold {
    /// A reference, for a call whose end the state records.
    held: Option<Held<State>>,
    /// The number of the state, for other calls.
    number: u32,
    share: TimerShare,
    entered: StackStripe,
}

impl Hold {
    /// Returns the hold of a call that begins.
    #[inline]
    pub(super) fn of(state: &Held<State>) -> Self {
        Self {
            held: state.keeps_calls().then(|| state.clone()),
            number: state.number().get().unwrap_or_default(),
            share: state.timer_share(),
            entered: None,
        }
    }

    /// Holds the state from now on.
    pub(super) fn keep(&mut self, state: &Held<State>) {
        self.held = Some(state.clone());
    }

    /// Returns the state, if the call holds it.
    #[inline]
    pub(super) fn held(&self) -> Option<&Held<State>> {
        self.held.as_ref()
    }

    #[inline]
    pub(super) fn timer_share(&self) -> TimerShare {
        self.share
    }

    /// Counts the call in its stack.
    #[inline(always)]
    pub(super) fn enter(&mut self, state: &State) -> Result<(), Box<Rejected>> {
        self.entered = state.enter()?;
        Ok(())
    }

    /// Ends the call's count. A second call does nothing.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some(state) = &self.held {
            state.leave(&mut self.entered);
        }
    }

    /// Makes the rejection of the call.
    #[cold]
    pub(super) fn reject(
        &self,
        kind: RejectedKind,
        reject: impl FnOnce(&State) -> Box<Rejected>,
    ) -> Box<Rejected> {
        if let Some(state) = &self.held {
            return reject(state);
        }
        match find(self.number) {
            Some(state) => reject(&state),
            None => reject_alone(kind),
        }
    }
}

/// Makes the rejection of a call whose layer is gone, and with it everything that shows its counts.
fn reject_alone(kind: RejectedKind) -> Box<Rejected> {
    // A layer with a name holds its calls.
    let tally = Tally::new("timeout", None);
    let rejected = Box::new(tally.rejection(kind, None));
    tally.rejected(&rejected);
    rejected
}

fn find(number: u32) -> Option<Arc<State>> {
    number::find(number)?.downcast().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::Striped;

    fn state(name: Option<&'static str>) -> Striped<State> {
        let state = State::new(Duration::from_secs(1), true, Default::default(), name);
        let state = Striped::new(state.unwrap());
        state.number().register(state.value());
        state
    }

    #[test]
    fn a_state_is_found_until_it_is_dropped() {
        let state = state(None);
        let number = state.number().get().unwrap();
        let found = find(number).unwrap();
        assert!(Arc::ptr_eq(&found, state.value()));
        drop(state);
        assert!(find(number).is_some(), "another reference is left");
        drop(found);
        assert!(find(number).is_none());
    }

    #[test]
    fn only_calls_that_are_recorded_hold_the_state() {
        assert!(Hold::of(state(None).here()).held().is_none());
        assert!(Hold::of(state(Some("shop")).here()).held().is_some());
    }
}
