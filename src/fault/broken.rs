//! Faults of bodies.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;

use crate::fault::{
    kind::BodyKind,
    state::{Active, CurrentRun},
    wait::{Wait, Waited},
};

/// The fault of a body that is being read.
#[derive(Debug)]
pub struct Broken {
    kind: BodyKind,
    active: Active,
    run: CurrentRun,
    wait: Option<Wait>,
    /// Bytes that were read and not passed on yet.
    held: Bytes,
    /// If true, the next piece has waited.
    waited: bool,
}

/// The next step of a body.
pub(super) enum BodyStep {
    /// Pass a piece on.
    Pass(Bytes),
    /// Read the inner body.
    Read,
    /// Fail.
    Fail(io::Error),
    /// Pass this on, and the rest unchanged: the run has ended.
    Heal(Bytes),
}

impl Broken {
    pub(super) fn new(kind: BodyKind, active: Active, run: CurrentRun) -> Self {
        Self {
            kind,
            active,
            run,
            wait: None,
            held: Bytes::new(),
            waited: false,
        }
    }

    pub(super) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Returns the next step. `over` is true if the inner body has ended.
    pub(super) fn poll(&mut self, over: bool, cx: &mut Context<'_>) -> Poll<BodyStep> {
        if let Some(wait) = &mut self.wait {
            let waited = ready!(wait.poll(cx));
            self.wait = None;
            self.waited = waited == Waited::Over;
        }
        if !self.active.state().is_on(self.run) {
            return Poll::Ready(BodyStep::Heal(std::mem::take(&mut self.held)));
        }
        let whole = over && self.held.is_empty();
        match self.kind {
            BodyKind::Cut(0) if !whole => Poll::Ready(BodyStep::Fail(cut())),
            BodyKind::Stall(0) if !whole => self.wait_until(None, over, cx),
            BodyKind::Cut(_) | BodyKind::Stall(_) => Poll::Ready(BodyStep::Read),
            BodyKind::Trickle(..) if self.held.is_empty() => Poll::Ready(BodyStep::Read),
            BodyKind::Trickle(_, every) if !self.waited => self.wait_until(Some(every), over, cx),
            BodyKind::Trickle(bytes, _) => {
                self.waited = false;
                let piece = self.held.split_to(bytes.min(self.held.len()));
                Poll::Ready(BodyStep::Pass(piece))
            }
        }
    }

    fn wait_until(
        &mut self,
        lasting: Option<Duration>,
        over: bool,
        cx: &mut Context<'_>,
    ) -> Poll<BodyStep> {
        let (state, run) = (self.active.state().clone(), self.run);
        self.wait = Some(match lasting {
            Some(lasting) => Wait::lasting(state, run, lasting),
            None => Wait::for_end(state, run),
        });
        self.poll(over, cx)
    }

    /// Takes a piece that was read, and returns the part that is passed on at once, if any.
    pub(super) fn take(&mut self, mut data: Bytes) -> Option<Bytes> {
        match &mut self.kind {
            BodyKind::Trickle(..) => {
                self.held = data;
                None
            }
            BodyKind::Cut(left) | BodyKind::Stall(left) => {
                let passed = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= passed as u64;
                self.held = data.split_off(passed);
                (passed > 0).then_some(data)
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the body was cut by an injected fault",
    )
}
