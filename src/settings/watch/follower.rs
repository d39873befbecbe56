//! The thread of a watch.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use notify::{
    Event,
    event::{AccessKind, AccessMode, EventKind, ModifyKind},
};
use tower::BoxError;

use super::{
    error::ReloadError,
    file::{Reading, Stamp, is_blank},
    settling::{APART, Next, Settling},
    status::Status,
};
use crate::{Changed, ambient::clock::nanos, observe::by_file};

/// Applies an accepted text to everything that has settings in it.
pub(super) type Apply = Box<dyn FnMut(&str) -> Vec<Applied> + Send>;
/// The section, if the file has several, and the result for it.
pub(super) type Applied = (Option<String>, Result<Changed, ReloadError>);
pub(super) type ReportFn = Box<dyn FnMut(Option<&str>, Result<Changed, ReloadError>) + Send>;

pub(super) struct Follower {
    path: PathBuf,
    /// The file's names in events: the given one, and that of the link's target.
    names: Vec<PathBuf>,
    settling: Settling,
    /// If true, an event concerned the file itself.
    touched: bool,
    /// The time of the last reading.
    last_read: u64,
    apply: Apply,
    report: ReportFn,
    status: Arc<Status>,
}

impl Follower {
    pub(super) fn new(path: PathBuf, apply: Apply, report: ReportFn, status: Arc<Status>) -> Self {
        Self {
            names: names(&path),
            path,
            settling: Settling::default(),
            touched: true,
            last_read: 0,
            apply,
            report,
            status,
        }
    }

    /// Checks the file after events and at intervals, until the watch ends.
    pub(super) fn follow(&mut self, events: &Receiver<notify::Result<Event>>) {
        /// Reports the end of the thread, whatever the cause.
        struct ThreadGuard(Arc<Status>);

        impl Drop for ThreadGuard {
            fn drop(&mut self) {
                self.0.has_ended();
            }
        }

        let _ended = ThreadGuard(self.status.clone());
        let mut due = 0;
        loop {
            let now = self.status.now();
            if now >= due {
                let wait = self.look(now);
                due = self.status.now().saturating_add(nanos(wait));
                continue;
            }
            match events.recv_timeout(Duration::from_nanos(due - now)) {
                // Most files are written in several steps, and a folder may never be quiet.
                Ok(event) if self.concerns(event.as_ref().ok()) => {
                    due = due.min(self.status.now().saturating_add(nanos(APART)));
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Returns whether the file may have changed with an event. `None` is an event that was lost.
    fn concerns(&mut self, event: Option<&Event>) -> bool {
        let Some(event) = event else {
            self.touched = true;
            return true;
        };
        let mut paths = event.paths.iter();
        let own = event.paths.is_empty() || paths.any(|path| self.names.contains(path));
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                if own {
                    self.settling.closed();
                }
                self.touched |= own;
                own
            }
            // The file was read, as this thread itself does at each check.
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                if own && TELLS_OF_CLOSES {
                    self.settling.written(self.status.now());
                }
                self.touched |= own;
                own
            }
            // Another name in the folder may be a link on the path to the file.
            _ => {
                self.touched |= own;
                true
            }
        }
    }

    /// Checks the file, and returns the time until the next check.
    fn look(&mut self, now: u64) -> Duration {
        let fresh = now.saturating_sub(self.last_read) < nanos(EVERY);
        if fresh && !self.touched && self.settling.is_settled(Stamp::of(&self.path)) {
            return EVERY;
        }
        self.touched = false;
        self.last_read = now;
        self.status.was_read();
        match self.settling.read(Reading::of(&self.path), now) {
            Next::Again(wait) => {
                self.touched = true;
                return wait;
            }
            Next::Nothing => self.status.is_unchanged(),
            Next::Take => {
                self.names = names(&self.path);
                self.take();
            }
        }
        EVERY
    }

    fn take(&mut self) {
        let failed = |error: BoxError| vec![(None, Err(ReloadError::new(&self.path, error)))];
        let results = match self.settling.taken() {
            Some(Reading::Text { text, .. }) if is_blank(text) => {
                failed("it is empty, as one that is just being written: write its settings".into())
            }
            Some(Reading::Text { text, .. }) => {
                let (apply, file) = (&mut self.apply, self.status.file());
                caught(|| by_file(file, || apply(text))).unwrap_or_else(failed)
            }
            Some(Reading::Failed(error)) => failed(io::Error::other(error.clone()).into()),
            None => return,
        };
        let failing = results.iter().any(|(_, result)| result.is_err());
        self.status.was_taken(failing);
        for (section, result) in results {
            self.tell(section.as_deref(), result);
        }
    }

    fn tell(&mut self, section: Option<&str>, result: Result<Changed, ReloadError>) {
        match &result {
            // The first reading is usually what the layer was built with.
            Ok(changed) if changed.is_empty() => return,
            Ok(_) => self.status.has_changed(),
            Err(error) => self.status.has_failed(error.to_string()),
        }
        let report = &mut self.report;
        if let Err(panic) = caught(|| report(section, result)) {
            self.status
                .has_failed(format!("the report of that: {panic}"));
        }
    }
}

/// Runs user code. A panic in it must not end the watch.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, BoxError> {
    // The panic is reported as an error, and the next text starts afresh.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let told = told(&*panic);
        // Dropping the panic's payload is user code too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        told.into()
    })
}

fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("without a message"))
}

fn names(path: &Path) -> Vec<PathBuf> {
    let names = [std::path::absolute(path), path.canonicalize()];
    names.into_iter().flatten().collect()
}

/// The time after which a file is read again without an event.
const EVERY: Duration = Duration::from_secs(10);
/// If true, the system reports when a writer has closed a file.
const TELLS_OF_CLOSES: bool = cfg!(any(target_os = "linux", target_os = "android"));
