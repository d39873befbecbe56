//! The mark of what was injected.

/// The mark of an answer that a fault has made, or whose body it breaks: an extension of the
/// response.
///
/// ```
/// use tower_keep::fault::Injected;
///
/// fn is_real<B>(response: &http::Response<B>) -> bool {
///     response.extensions().get::<Injected>().is_none()
/// }
/// # assert!(is_real(&http::Response::new(())));
/// ```
///
/// Errors bear no mark: they are of the same types as real ones, so that they are read as those
/// are. The [snapshot](super::Snapshot) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// The fault, by its name.
    pub fault: &'static str,
    /// The layer, by its name.
    pub name: Option<&'static str>,
    /// The reason that the layer was given.
    pub reason: &'static str,
}
