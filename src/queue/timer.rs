//! A waiter's timer, which other threads set too.
//!
//! The pumping thread knows best when the next turn comes. It sets that waiter's timer, so that the
//! waiter need not be polled for it: a waiter polls when it joins and when its turn has come.
//!
//! No thread waits for another here, since tokio's timer runs wakers. A thread that finds the timer
//! locked leaves its setting to the thread that holds it, which checks again when it is done.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep_until};

use super::setting::Setting;
use crate::ambient::clock::Clock;

#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    /// The latest setting. No user code runs under this lock.
    wanted: Mutex<Option<Setting>>,
    /// Only ever locked with `try_lock`.
    sleep: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            wanted: Mutex::new(None),
            sleep: Mutex::new(None),
        }
    }

    /// Sets the timer for another task.
    pub(super) fn set(&self, setting: Setting) {
        self.want(setting);
        // A task that has not polled its timer yet applies the setting itself.
        self.apply(|sleep, wake| {
            if let Some(sleep) = sleep {
                sleep.as_mut().reset(wake);
            }
        });
    }

    /// Polls the timer. Ready at the latest setting. Pending if the machine's clock does not have
    /// that time.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rung = Poll::Pending;
        let applied = self.apply(|sleep, wake| {
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(wake)));
            if sleep.deadline() != wake {
                sleep.as_mut().reset(wake);
            }
            rung = sleep.as_mut().poll(cx);
        });
        if !applied {
            // Another thread is setting the timer just now.
            cx.waker().wake_by_ref();
        }
        rung
    }

    pub(super) fn want(&self, setting: Setting) {
        let mut wanted = self.wanted();
        if wanted.is_none_or(|wanted| wanted.edition < setting.edition) {
            *wanted = Some(setting);
        }
    }

    /// Applies the latest setting, and again if a later one has arrived meanwhile. Returns `false`
    /// if another thread holds the timer and will apply the setting.
    fn apply(
        &self,
        mut with: impl FnMut(&mut Option<Pin<Box<Sleep>>>, tokio::time::Instant),
    ) -> bool {
        loop {
            let mut sleep = match self.sleep.try_lock() {
                Ok(sleep) => sleep,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return false,
            };
            let wanted = *self.wanted();
            let wake = wanted.and_then(|wanted| self.clock.moment(wanted.at));
            if let Some(wake) = wake {
                with(&mut sleep, wake);
            }
            drop(sleep);
            if *self.wanted() == wanted {
                return true;
            }
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Option<Setting>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
