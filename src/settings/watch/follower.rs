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

/// Applies a text that was taken, to each thing that it has settings of.
pub(super) type Apply = Box<dyn FnMut(&str) -> Vec<Applied> + Send>;
/// The section, if the file has several, and what has become of it.
pub(super) type Applied = (Option<String>, Result<Changed, ReloadError>);
pub(super) type Report = Box<dyn FnMut(Option<&str>, Result<Changed, ReloadError>) + Send>;

pub(super) struct Follower {
    path: PathBuf,
    /// The file's names in events: the one that was given, and that of what it links to.
    names: Vec<PathBuf>,
    settling: Settling,
    /// If true, an event was about the file itself.
    touched: bool,
    /// When the file was read last.
    last_read: u64,
    apply: Apply,
    report: Report,
    status: Arc<Status>,
}

impl Follower {
    pub(super) fn new(path: PathBuf, apply: Apply, report: Report, status: Arc<Status>) -> Self {
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

    /// Looks at the file when an event tells of it, and now and then, until there are no more
    /// events to come.
    pub(super) fn follow(&mut self, events: &Receiver<notify::Result<Event>>) {
        /// Tells of the end, however it comes.
        struct Ended(Arc<Status>);

        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.has_ended();
            }
        }

        let _ended = Ended(self.status.clone());
        let mut due = 0;
        loop {
            let now = self.status.now();
            if now >= due {
                let wait = self.look(now);
                due = self.status.now().saturating_add(nanos(wait));
                continue;
            }
            match events.recv_timeout(Duration::from_nanos(due - now)) {
                // A file is mostly written in several steps, and a folder may never be quiet.
                Ok(event) if self.concerns(event.as_ref().ok()) => {
                    due = due.min(self.status.now().saturating_add(nanos(APART)));
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Returns whether the file may be another after an event. `None` is one that was lost.
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
            // That somebody has read it, which this thread does at each look.
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                if own && TELLS_OF_CLOSES {
                    self.settling.written(self.status.now());
                }
                self.touched |= own;
                own
            }
            // Another name in the folder may be a link on the way to the file.
            _ => {
                self.touched |= own;
                true
            }
        }
    }

    /// Looks at the file, and says after how long to look again.
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
            // The first look mostly finds what was built with.
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

/// Runs user code, whose panic must not end the watch.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, BoxError> {
    // What it was about is reported as an error, and begun again with the next text.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let told = told(&*panic);
        // To drop it is user code too.
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

/// The time after which a file is read again though no event tells of it.
const EVERY: Duration = Duration::from_secs(10);
/// If true, the system says when a writer has closed a file.
const TELLS_OF_CLOSES: bool = cfg!(any(target_os = "linux", target_os = "android"));
