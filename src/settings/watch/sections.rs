//! The watch of one file with the settings of several layers or stacks.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use tower::BoxError;

use super::{
    error::ReloadError,
    follower::{Applied, caught},
    watching::{Watch, start},
};
use crate::{
    Changed,
    settings::{Document, Reload, Settings},
};

/// Several running layers or stacks, each with a section of one file.
///
/// One watch follows all sections. A mistake in one section is reported, and does not stop the
/// others. A text that cannot be read at all stops all of them. [`watch`](crate::settings::watch)
/// tells when a text is accepted. Each section must keep its own fields.
///
/// ```no_run
/// use tower_keep::{settings::{ClientSettings, Document, Reload, Sections}, stack};
///
/// let parse = |text: &str| -> Result<Document, tower::BoxError> { Ok(toml::from_str(text)?) };
/// let file = parse(&std::fs::read_to_string("stacks.toml")?)?;
/// let mut sections = Sections::new();
/// for name in ["payments", "search"] {
///     let settings: ClientSettings = file.section(name)?;
///     let stack = settings.apply_to(stack::client().http())?.build()?;
///     sections = sections.add(name, Reload::new(stack.handle(), settings));
/// }
/// let _watch = sections.watch("stacks.toml", parse, |section, result| match result {
///     Ok(changed) => println!("{}: {changed}", section.unwrap_or("all")),
///     Err(error) => eprintln!("{error}"),
/// })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Default)]
#[must_use = "sections are followed once `watch` is called"]
pub struct Sections(Vec<Section>);

struct Section {
    name: String,
    apply: Box<Move>,
}

/// Applies a file's section to its layer or stack.
type Move = dyn FnMut(&Document) -> Result<Changed, BoxError> + Send;

impl Sections {
    /// Starts without sections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer or stack with the name of its section. The name is a path if the section is
    /// within another: `stacks.payments`. Layers and stacks of any kind can be mixed.
    pub fn add<S>(mut self, name: impl Into<String>, mut reload: Reload<S>) -> Self
    where
        S: Settings + DeserializeOwned + Send + 'static,
        S::Handle: Send + 'static,
    {
        let name = name.into();
        let section = name.clone();
        let apply = move |document: &Document| reload.follow(document.section(&section)?);
        self.0.push(Section {
            name,
            apply: Box::new(apply),
        });
        self
    }

    /// Watches the file, as [`watch`](crate::settings::watch) does. `report` also receives the
    /// section, or `None` for an error of the whole file.
    ///
    /// # Errors
    /// The system cannot watch the file's folder, or start a thread.
    pub fn watch(
        self,
        path: impl Into<PathBuf>,
        parse: impl Fn(&str) -> Result<Document, BoxError> + Send + 'static,
        report: impl FnMut(Option<&str>, Result<Changed, ReloadError>) + Send + 'static,
    ) -> io::Result<Watch> {
        let (path, Self(mut sections)) = (path.into(), self);
        let file = path.clone();
        let apply = move |text: &str| match parse(text) {
            Ok(document) => {
                let sections = sections.iter_mut();
                sections
                    .map(|section| section.apply(&file, &document))
                    .collect()
            }
            Err(error) => vec![(None, Err(ReloadError::new(&file, error)))],
        };
        start(path, Box::new(apply), Box::new(report))
    }
}

impl Section {
    fn apply(&mut self, file: &Path, document: &Document) -> Applied {
        let apply = &mut self.apply;
        // A panic in one section does not stop the others either.
        let applied = caught(|| apply(document)).and_then(|applied| applied);
        let name = self.name.clone();
        let applied = applied.map_err(|error| ReloadError::new(file, error).of(&name));
        (Some(name), applied)
    }
}

impl fmt::Debug for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|section| &section.name);
        f.debug_list().entries(names).finish()
    }
}
