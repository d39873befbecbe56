//! One count for each event, where several layers have one budget, one beneath the other.
//!
//! A retry sees its calls, and a hedge beneath it sees each of their attempts. If both told a
//! budget that they share, a success would pay twice, attempts would fund retries, and a failure
//! would cost two. So a call begins with the outermost of them, and a result is counted by the
//! innermost, which sees it first; the others learn that it was.
//!
//! They learn it by the thread: while a layer polls its attempts, its budget is noted here. Nothing
//! else passes through all that may stand between two layers: requests without extensions have no
//! room for a note, and types do not know which budget a layer has. An attempt that runs in a task
//! of its own is beyond that, and counts for itself.

use std::{cell::Cell, marker::PhantomData, sync::Arc};

use crate::algorithm::Budget;

/// A layer polls a call. Ends when it is dropped.
pub(crate) struct Counting {
    /// `None` for a budget that no other layer can have, and where too many are noted.
    slot: Option<usize>,
    is_outermost: bool,
    /// The note is the thread's.
    not_send: PhantomData<*const ()>,
}

/// The budgets of the layers that are polling, and of which of them the last result was counted.
#[derive(Clone, Copy)]
struct Noted {
    /// Addresses: each is that of a budget which a layer further up on the stack holds.
    budgets: [*const Budget; DEPTH],
    counted: [bool; DEPTH],
}

impl Counting {
    /// For a layer whose budget is its own.
    pub(super) fn alone() -> Self {
        Self {
            slot: None,
            is_outermost: true,
            not_send: PhantomData,
        }
    }

    /// For a layer whose budget others may have.
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

    /// Returns whether the call is this layer's to count, and not a piece of one above.
    #[inline]
    pub(crate) fn is_outermost(&self) -> bool {
        self.is_outermost
    }

    /// Returns whether a layer beneath has counted the result that has just come, and forgets it.
    #[inline]
    pub(crate) fn take_counted(&self) -> bool {
        let Some(slot) = self.slot else { return false };
        let taken = change(|noted| std::mem::take(&mut noted.counted[slot]));
        taken.unwrap_or_default()
    }

    /// The call ends with a result that needs no counting any more.
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

/// `None` on a thread that is being torn down.
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

/// Budgets of layers one beneath the other; a further one counts as if it were alone.
const DEPTH: usize = 4;
