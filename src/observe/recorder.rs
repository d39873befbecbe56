//! Whether a recorder is the global one, whose handles may be kept.
//!
//! A look at the recorder for every series costs more than all else of a publication. Handles may
//! only be kept while it is the same recorder, and the facade does not say which one it is. An
//! address alone does not tell either: a local recorder may lie where one lay before. But the
//! global recorder is never replaced nor freed, so no other can have its address.

use std::{ptr, sync::OnceLock, thread};

use metrics::Recorder;

/// Whether it is the recorder of the process. Says no of one without size, which shares addresses.
pub(super) fn is_global(recorder: &dyn Recorder) -> bool {
    let address = address(recorder);
    address.is_some() && address == global()
}

/// The address of the global recorder, if there is one by now.
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
