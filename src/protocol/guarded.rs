//! A part of a call that may panic.

use super::Settle;
use crate::Outcome;

/// Runs a part of a call. If it panics, settles the permit as a failure while it unwinds.
///
/// A check of `thread::panicking()` in the permit's `Drop` would not be enough. Tokio catches a
/// task's panic before it drops the task. And a call that is merely dropped while its caller panics
/// has not failed.
#[inline]
pub(crate) fn guarded<T: Settle, R>(permit: &mut Option<T>, run: impl FnOnce() -> R) -> R {
    struct OnUnwind<'a, T: Settle>(&'a mut Option<T>);

    impl<T: Settle> Drop for OnUnwind<'_, T> {
        fn drop(&mut self) {
            if let Some(permit) = self.0.take() {
                permit.settle(Outcome::Failure, None);
            }
        }
    }

    let guard = OnUnwind(permit);
    let output = run();
    std::mem::forget(guard);
    output
}
