//! The start of a watch.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tower::BoxError;

use super::{
    error::ReloadError,
    follower::{Apply, Follower, ReportFn},
    status::{Status, WatchHandle},
};
use crate::{
    Changed, Name,
    observe::register,
    settings::{Reload, Settings},
};

/// A watch of a file, for as long as it lives. Made by [`watch`].
#[must_use = "a file is followed only as long as this lives"]
pub struct Watch {
    status: Arc<Status>,
    /// The thread ends when this is dropped, because it holds the only sender of events.
    _watcher: RecommendedWatcher,
}

/// Watches a file of settings: reads it when it changes, and applies its settings.
///
/// `read` makes settings of the file's text, best by [`settings::read`](crate::settings::read),
/// which names the path of a mistake. `report` receives each change and each mistake, on a thread
/// of this file alone. An unchanged text is not reported. A panic in either closure is an error of
/// that text, and the watch continues.
///
/// **Accepted texts.** A file that is missing, empty, half written or wrong changes nothing. It is
/// reported, and still watched. A text is accepted once
///
/// - two readings 100 ms apart were equal, in length and time of change too,
/// - its writer has closed the file, if the system reports that (Linux), which is waited for at
///   most half a minute,
/// - it is more than comments, and `read` makes settings of it,
/// - it has the fields that the text before had. All fields have defaults, so a text that was cut
///   off would otherwise apply those. A missing field is an error, unless the text has `partial =
///   true`. To return to a default, write it.
///
/// The file must be a regular one of 1 MiB at most.
///
/// The file may be replaced, as editors do, or be a link that changes its target, as Kubernetes
/// does with a `ConfigMap`. If the system reports no changes, as on some network file systems, it
/// is read every ten seconds. The content before the call is read at once, so nothing is missed
/// between your first reading and this one.
///
/// **Observe it** with [`Watch::handle`], and with metrics under the last part of the file's path,
/// which two files of the same name in different folders share: see
/// [`observe`](crate::observe).
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
/// let watch = settings::watch("client.toml", read, reload, |result| match result {
///     Ok(changed) => println!("{changed}"),
///     Err(error) => eprintln!("{error}"),
/// })?;
/// assert!(watch.handle().is_alive());
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
    let (file, mut reload) = (path.clone(), reload);
    let apply = move |text: &str| {
        let applied = read(text).and_then(|next| reload.follow(next));
        vec![(
            None,
            applied.map_err(|error| ReloadError::new(&file, error)),
        )]
    };
    let mut report = report;
    let report = move |_: Option<&str>, result| report(result);
    start(path, Box::new(apply), Box::new(report))
}

/// Watches a file on its own thread.
pub(super) fn start(path: PathBuf, apply: Apply, report: ReportFn) -> io::Result<Watch> {
    let (sender, events) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| {
        let _ = sender.send(event);
    })
    .map_err(io::Error::other)?;
    for folder in folders(&path) {
        let watching = watcher.watch(&folder, RecursiveMode::NonRecursive);
        watching.map_err(io::Error::other)?;
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = Name::from(name.to_string_lossy().into_owned());
    let status = Arc::new(Status::new(name.as_str()));
    register(&status);
    let mut follower = Follower::new(path, apply, report, status.clone());
    let thread = thread::Builder::new().name("tower-keep-watch".to_owned());
    thread.spawn(move || follower.follow(&events))?;
    Ok(Watch {
        status,
        _watcher: watcher,
    })
}

/// Returns the file's folder, and the folder of the link's target.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(path)];
    folders.extend(path.canonicalize().ok().as_deref().map(parent));
    folders
}

impl Watch {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> WatchHandle {
        WatchHandle::new(self.status.clone())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch")
            .field(&self.handle().snapshot())
            .finish()
    }
}
