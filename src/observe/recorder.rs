//! Detection of the global recorder, whose handles may be kept.
//!
//! Registering every series with the recorder costs more than the rest of a publication. Handles
//! may only be kept while the recorder is the same, and the facade does not tell which one it is.
//! An address alone does not tell either: a local recorder may have the address of an earlier one.
//! But the global recorder is never replaced nor freed, so no other can have its address.

use std::{ptr, sync::OnceLock, thread};

use metrics::Recorder;

/// Returns whether it is the global recorder. False for a zero-sized one, which shares addresses.
pub(super) fn is_global(recorder: &dyn Recorder) -> bool {
    let address = address(recorder);
    address.is_some() && address == global()
}

/// Returns the address of the global recorder, if there is one yet.
fn global() -> Option<usize> {
    static FOUND: OnceLock<usize> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Some(*found);
    }
    // A new thread has no local recorder, so it gets the global one.
    let thread = thread::Builder::new().spawn(|| metrics::with_recorder(address));
    let found = thread.ok()?.join().ok()??;
    Some(*FOUND.get_or_init(|| found))
}

fn address(recorder: &dyn Recorder) -> Option<usize> {
    (size_of_val(recorder) > 0).then(|| ptr::from_ref(recorder).addr())
}
