//! Follows a file.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tower::BoxError;

use crate::{
    Changed,
    settings::{Reload, Settings},
};

/// Follows a file for as long as it lives. Made by [`watch`].
#[derive(Debug)]
#[must_use = "a file is followed only as long as this lives"]
pub struct Watch {
    /// The thread ends when this is gone, which has the only sender of its events.
    _watcher: RecommendedWatcher,
}

/// Why a file did not become settings. The last good ones stay.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReloadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong: the file could not be read, or its text, or its settings are refused.
    pub source: BoxError,
}

/// Follows a file of settings: reads it when it changes, and moves what runs to what it says.
///
/// `read` makes settings of its text; [`settings::read`](crate::settings::read) tells the path of a
/// mistake. `report` is told each change and each mistake, on a thread that only this file has. A
/// file that is missing, half written or wrong changes nothing, and is looked at again. A text as
/// before is not reported.
///
/// The file may be replaced, as editors do, or a link that is set anew, as Kubernetes does with a
/// `ConfigMap`. Where the system tells of no changes, as some network file systems, it is looked at
/// every ten seconds. What was in the file before the call is looked at at once, so nothing is
/// missed between its first reading and this.
///
/// ```no_run
/// use tower_keep::{settings::{self, ClientSettings, Reload}, stack};
///
/// let read = |text: &str| -> Result<ClientSettings, tower::BoxError> {
///     Ok(settings::read(toml::Deserializer::parse(text)?)?)
/// };
/// let settings = read(&std::fs::read_to_string("client.toml")?)?;
/// let stack = settings.apply_to(stack::client().http())?.build()?;
/// let reload = Reload::new(stack.handle(), settings);
/// let _watch = settings::watch("client.toml", read, reload, |result| match result {
///     Ok(changed) => println!("{changed}"),
///     Err(error) => eprintln!("{error}"),
/// })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
///
/// # Errors
/// The system cannot watch the file's folder, or start a thread.
pub fn watch<S>(
    path: impl Into<PathBuf>,
    read: impl Fn(&str) -> Result<S, BoxError> + Send + 'static,
    reload: Reload<S>,
    report: impl FnMut(Result<Changed, ReloadError>) + Send + 'static,
) -> io::Result<Watch>
where
    S: Settings + Send + 'static,
    S::Handle: Send + 'static,
{
    let path = path.into();
    let (event, events) = mpsc::channel();
    // A folder of many files is woken for each of them: the text tells whether it was this one.
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = event.send(());
    })
    .map_err(io::Error::other)?;
    for folder in folders(&path) {
        let watching = watcher.watch(&folder, RecursiveMode::NonRecursive);
        watching.map_err(io::Error::other)?;
    }
    let mut follower = Follower {
        path,
        text: None,
        read,
        reload,
        report,
    };
    let thread = thread::Builder::new().name("tower-keep-watch".to_owned());
    thread.spawn(move || follower.follow(&events))?;
    Ok(Watch { _watcher: watcher })
}

/// The file's folder, and that of what it links to.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(path)];
    folders.extend(path.canonicalize().ok().as_deref().map(parent));
    folders
}

struct Follower<S: Settings, R, F> {
    path: PathBuf,
    /// What was read last, or why it could not be.
    text: Option<Result<String, io::ErrorKind>>,
    read: R,
    reload: Reload<S>,
    report: F,
}

impl<S, R, F> Follower<S, R, F>
where
    S: Settings,
    R: Fn(&str) -> Result<S, BoxError>,
    F: FnMut(Result<Changed, ReloadError>),
{
    fn follow(&mut self, events: &Receiver<()>) {
        loop {
            // A file is mostly written in several steps. A folder may never be quiet.
            for _ in 0..20 {
                if events.recv_timeout(SETTLED) != Ok(()) {
                    break;
                }
            }
            self.look();
            if events.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn look(&mut self) {
        let read = fs::read_to_string(&self.path);
        let text = read.as_ref().map(String::clone).map_err(io::Error::kind);
        if self.text.as_ref() == Some(&text) {
            return;
        }
        self.text = Some(text);
        let applied = match read {
            Ok(text) => self.apply(&text),
            Err(error) => Err(error.into()),
        };
        match applied {
            // The first look mostly finds what was built with.
            Ok(changed) if changed.is_empty() => {}
            Ok(changed) => (self.report)(Ok(changed)),
            Err(source) => (self.report)(Err(ReloadError {
                path: self.path.clone(),
                source,
            })),
        }
    }

    fn apply(&mut self, text: &str) -> Result<Changed, BoxError> {
        Ok(self.reload.apply((self.read)(text)?)?)
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl Error for ReloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// How often a file is looked at that no event tells of.
const EVERY: Duration = Duration::from_secs(10);
/// How long no event comes when a file is written.
const SETTLED: Duration = Duration::from_millis(50);
