//! The gate of a drained stack.

use std::{convert::Infallible, task::Context};

use super::Drain;
use crate::{
    ambient::clock::Now,
    gate::{Admission, Admit, CallEvent, Completion, Gate, Inquiry, Read, TicketPoll, Unsent},
};

/// A gate that counts the calls in flight, also those that wait further in. It rejects new calls
/// while its stack is drained.
#[derive(Debug, Clone)]
pub struct DrainGate(Drain);

impl DrainGate {
    pub(crate) fn new(drain: Drain) -> Self {
        Self(drain)
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0
    }
}

impl Gate for DrainGate {
    /// The stripe on which the call has entered.
    type Pass = Option<usize>;
    type Ticket = Infallible;
    type Asked = ();

    fn give_back(&self, pass: Option<usize>, _: Unsent, _: &Now) {
        if let Some(stripe) = pass {
            self.0.leave(stripe);
        }
    }

    #[inline(always)]
    fn end(&self, pass: Option<usize>, _: Completion, _: &Now) {
        if let Some(stripe) = pass {
            self.0.leave(stripe);
        }
    }

    fn leave(&self, ticket: Infallible, _: &Now) {
        match ticket {}
    }

    #[inline(always)]
    fn owes(&self, pass: &Option<usize>) -> bool {
        pass.is_some()
    }

    /// An upgraded connection is in flight until it closes.
    #[inline(always)]
    fn event(&self, _: &mut Option<usize>, _: CallEvent, _: &Now) {}
}

impl<Req> Admit<Req> for DrainGate {
    #[inline(always)]
    fn admit(&self, _: Inquiry<'_, Req, ()>, _: &Now) -> Admission<Option<usize>, Infallible> {
        match self.0.enter() {
            Ok(stripe) => Admission::Granted(Some(stripe)),
            Err(rejected) => Admission::Rejected(rejected),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Infallible,
        _: Inquiry<'_, Req, ()>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<Option<usize>> {
        match *ticket {}
    }
}

impl<Res> Read<Res> for DrainGate {}
