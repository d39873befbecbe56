//! The decision on one call.

use std::time::Duration;

use crate::{
    fault::{
        fate::Draw,
        kind::Kind,
        state::{Active, CurrentRun, State},
        wait::Wait,
    },
    sync::Striped,
};

/// The faults of one call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) wait: Option<Wait>,
    /// The index of the fault that answers in place of the service.
    pub(super) end: Option<usize>,
    /// The index of the fault of the response's body.
    pub(super) body: Option<usize>,
    pub(super) active: Active,
    pub(super) run: CurrentRun,
}

/// The faults that hit one call.
#[derive(Debug, Default)]
struct Hits {
    delay: Duration,
    hangs: bool,
    end: Option<usize>,
    body: Option<usize>,
    all: Vec<usize>,
}

impl Plan {
    /// Decides on a call, in the order of the faults. Waits add up to the first fault that answers
    /// or hangs. `None` if no fault applies. `holds` returns whether a fault applies to the
    /// request.
    pub(super) fn of_call(
        state: &Striped<State>,
        run: CurrentRun,
        attempt: u32,
        holds: impl Fn(usize, &mut Draw) -> bool,
    ) -> Option<Self> {
        let hits = Hits::of_call(state, run, attempt, holds);
        if !suffers(state, &hits.all) {
            return None;
        }
        let active = Active::begin(state)?;
        hits.all.iter().for_each(|fault| state.count(*fault, true));
        let held = || active.state().clone();
        let wait = match hits.hangs {
            true => Some(Wait::for_end(held(), run)),
            false if hits.delay.is_zero() => None,
            false => Some(Wait::lasting(held(), run, hits.delay)),
        };
        Some(Self {
            wait,
            end: hits.end,
            body: hits.body,
            active,
            run,
        })
    }

    /// Decides on a wait for readiness. `None` if no fault applies.
    pub(super) fn of_readiness(state: &Striped<State>, run: CurrentRun) -> Option<(Wait, Active)> {
        let number = state.next_wait();
        let hit = state.faults.iter().position(|fault| {
            matches!(fault.kind, Kind::NotReady)
                && Draw::new(fault.seed, number, 1).hits(fault.schedule.share_at(run.elapsed))
        })?;
        if !suffers(state, &[hit]) {
            return None;
        }
        let active = Active::begin(state)?;
        state.count(hit, true);
        let over = state.faults[hit].schedule.over_at(run.elapsed);
        let left = Duration::from_nanos(over - run.elapsed);
        Some((Wait::lasting(active.state().clone(), run, left), active))
    }
}

/// Returns whether these faults are injected. In shadow mode they are only counted.
fn suffers(state: &State, hits: &[usize]) -> bool {
    let shadow = state.is_shadow();
    if shadow {
        hits.iter().for_each(|fault| state.count(*fault, false));
    }
    !shadow && !hits.is_empty()
}

impl Hits {
    fn of_call(
        state: &State,
        run: CurrentRun,
        attempt: u32,
        holds: impl Fn(usize, &mut Draw) -> bool,
    ) -> Self {
        let number = state.next_call();
        let mut hits = Self::default();
        for (place, fault) in state.faults.iter().enumerate() {
            let share = fault.schedule.share_at(run.elapsed);
            let mut draw = Draw::new(fault.seed, number, attempt);
            let is_for_calls = !matches!(fault.kind, Kind::NotReady);
            if is_for_calls && share > 0.0 && holds(place, &mut draw) && draw.hits(share) {
                hits.add(place, &fault.kind, draw);
                if hits.hangs || hits.end.is_some() {
                    break;
                }
            }
        }
        hits
    }

    fn add(&mut self, place: usize, kind: &Kind, draw: Draw) {
        match kind {
            Kind::Delay(delay) => self.delay = self.delay.saturating_add(delay.draw(draw)),
            Kind::Hang => self.hangs = true,
            Kind::Answer(_) | Kind::Closure(_) | Kind::Panic => {
                self.end = Some(place);
                // The call never gets a body.
                if let Some(body) = self.body.take() {
                    self.all.retain(|fault| *fault != body);
                }
            }
            // One body fault is enough.
            Kind::Body(_) if self.body.is_some() => return,
            Kind::Body(_) => self.body = Some(place),
            Kind::NotReady => return,
        }
        self.all.push(place);
    }
}
