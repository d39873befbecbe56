//! The mark of an injected fault.

/// The mark of an answer that a fault has made, or whose body it breaks. It is an extension of the
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
/// Errors have no mark: they have the types of real ones, so that they are classified like those.
/// The [snapshot](super::Snapshot) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// The name of the fault.
    pub fault: &'static str,
    /// The name of the layer.
    pub name: Option<&'static str>,
    /// The reason given to the layer.
    pub reason: &'static str,
}
