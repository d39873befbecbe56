//! A pass and a ticket that go back unless they are taken, since another gate may reject or panic.

use std::mem;

use crate::{
    ambient::clock::Now,
    gate::{Gate, Unsent},
};

/// A pass that is given back unless it is taken.
pub(super) struct HeldPass<'a, G: Gate> {
    gate: &'a G,
    pub(super) pass: G::Pass,
    now: &'a Now,
}

/// A ticket whose queue it leaves unless it is taken.
pub(super) struct HeldTicket<'a, G: Gate> {
    gate: &'a G,
    ticket: Option<G::Ticket>,
    now: &'a Now,
}

impl<'a, G: Gate> HeldPass<'a, G> {
    #[inline(always)]
    pub(super) fn new(gate: &'a G, pass: G::Pass, now: &'a Now) -> Self {
        Self { gate, pass, now }
    }

    #[inline(always)]
    pub(super) fn take(mut self) -> G::Pass {
        let pass = mem::take(&mut self.pass);
        mem::forget(self);
        pass
    }
}

impl<G: Gate> Drop for HeldPass<'_, G> {
    #[inline(always)]
    fn drop(&mut self) {
        let pass = mem::take(&mut self.pass);
        self.gate.give_back(pass, Unsent::Abandoned, self.now);
    }
}

impl<'a, G: Gate> HeldTicket<'a, G> {
    pub(super) fn new(gate: &'a G, ticket: G::Ticket, now: &'a Now) -> Self {
        let ticket = Some(ticket);
        Self { gate, ticket, now }
    }

    pub(super) fn take(mut self) -> G::Ticket {
        self.ticket.take().expect("there until it is taken")
    }
}

impl<G: Gate> Drop for HeldTicket<'_, G> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.leave(ticket, self.now);
        }
    }
}
