//! Counts each event once, where several layers share a budget and one is beneath the other.
//!
//! A retry sees its calls, and a hedge beneath it sees each of their attempts. If both reported to
//! a budget that they share, a success would pay twice. Attempts would fund retries, and a failure
//! would cost two tokens. So the outermost layer counts the call. The innermost layer counts the
//! result, because it sees it first, and the others learn that it was counted.
//!
//! The layers share this by thread: while a layer polls its attempts, its budget is noted here.
//! Nothing else passes through every layer between the two: requests without extensions have no
//! room for a note, and types do not know which budget a layer has. An attempt that runs in a task
//! of its own is not covered, and counts for itself.

use std::{cell::Cell, marker::PhantomData, sync::Arc};

use crate::algorithm::Budget;

/// The time in which a layer polls a call. Ends on drop.
pub(crate) struct Counting {
    /// `None` for a budget that no other layer can have, and if too many budgets are noted.
    slot: Option<usize>,
    is_outermost: bool,
    /// Not `Send`: the note belongs to the thread.
    not_send: PhantomData<*const ()>,
}

/// The budgets of the layers that are polling, each with a flag: its last result was counted.
#[derive(Clone, Copy)]
struct Noted {
    /// Addresses, each of a budget that a layer higher in the stack holds.
    budgets: [*const Budget; DEPTH],
    counted: [bool; DEPTH],
}

impl Counting {
    /// Enters a layer whose budget no other layer has.
    #[inline]
    pub(super) fn alone() -> Self {
        Self {
            slot: None,
            is_outermost: true,
            not_send: PhantomData,
        }
    }

    /// Enters a layer whose budget other layers may have.
    #[inline]
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        let budget = Arc::as_ptr(budget);
        let noted = change(|noted| {
            let known = noted.budgets.iter().position(|other| *other == budget);
            let is_outermost = known.is_none();
            let slot = known.or_else(|| noted.budgets.iter().position(|other| other.is_null()))?;
            (noted.budgets[slot], noted.counted[slot]) = (budget, false);
            Some((slot, is_outermost))
        });
        noted
            .flatten()
            .map_or_else(Self::alone, |(slot, is_outermost)| Self {
                slot: Some(slot),
                is_outermost,
                not_send: PhantomData,
            })
    }

    /// Returns whether this layer counts the call. If false, the call is an attempt of a layer
    /// above.
    #[inline]
    pub(crate) fn is_outermost(&self) -> bool {
        self.is_outermost
    }

    /// Returns whether a layer beneath has counted the result that has just arrived. Clears the
    /// note.
    #[inline]
    pub(crate) fn take_counted(&self) -> bool {
        let Some(slot) = self.slot else { return false };
        let taken = change(|noted| std::mem::take(&mut noted.counted[slot]));
        taken.unwrap_or_default()
    }

    /// Notes that the call has ended, and that its result needs no more counting.
    #[inline]
    pub(crate) fn counted(&self) {
        if let (Some(slot), false) = (self.slot, self.is_outermost) {
            change(|noted| noted.counted[slot] = true);
        }
    }
}

impl Drop for Counting {
    #[inline]
    fn drop(&mut self) {
        if let (Some(slot), true) = (self.slot, self.is_outermost) {
            change(|noted| (noted.budgets[slot], noted.counted[slot]) = (std::ptr::null(), false));
        }
    }
}

/// Returns whether another layer may have the budget, now or later.
pub(super) fn may_be_shared(budget: &Arc<Budget>) -> bool {
    Arc::strong_count(budget) > 1 || Arc::weak_count(budget) > 0
}

/// Changes the thread's notes. Returns `None` on a thread that is being torn down.
#[inline]
fn change<T>(change: impl FnOnce(&mut Noted) -> T) -> Option<T> {
    thread_local!(static NOTED: Cell<Noted> = const {
        Cell::new(Noted { budgets: [std::ptr::null(); DEPTH], counted: [false; DEPTH] })
    });
    NOTED
        .try_with(|cell| {
            let mut noted = cell.get();
            let result = change(&mut noted);
            cell.set(noted);
            result
        })
        .ok()
}

/// The most budgets noted on a thread. A layer whose budget finds no slot counts as if it were
/// alone.
const DEPTH: usize = 4;
