//! Values of any type, read as errors.

use std::{any::Any, error::Error, io, sync::Arc};

use tower::BoxError;

use crate::Rejected;
#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
use crate::protocol::http::reqwest;

/// Reads a value as an error, though nothing is known of its type at compile time, not even that it
/// is an [`Error`].
///
/// [`Classify`](crate::Classify) has no bound on the error type, because a service's error may be a
/// [`BoxError`], which does not implement [`Error`]. A type is recognized here if it is a box, or
/// an error that means something to a protocol of this crate.
pub(super) fn as_error<E: 'static>(error: &E) -> Option<&(dyn Error + 'static)> {
    let error: &dyn Any = error;
    in_a_box(error)
        .or_else(|| one_of_ours(error))
        .or_else(|| over_http(error))
}

fn in_a_box(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<BoxError>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Box<dyn Error + Send>>() {
        return Some(&**error);
    }
    let error = error.downcast_ref::<Box<dyn Error>>()?;
    Some(&**error)
}

fn one_of_ours(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    let boxed = || error.downcast_ref::<Box<Rejected>>().map(|error| &**error);
    error
        .downcast_ref::<Rejected>()
        .or_else(boxed)
        .map(|error| error as _)
        .or_else(|| is::<io::Error>(error))
}

fn over_http(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    let found = is::<hyper_util::client::legacy::Error>(error)
        .or_else(|| is::<hyper::Error>(error))
        .or_else(|| is::<http::Error>(error));
    #[cfg(feature = "http2")]
    let found = found.or_else(|| is::<h2::Error>(error));
    #[cfg(feature = "tonic-014")]
    let found = found
        .or_else(|| is::<tonic::Status>(error))
        .or_else(|| is::<tonic::ConnectError>(error))
        .or_else(|| is::<tonic::TimeoutExpired>(error));
    #[cfg(feature = "reqwest-012")]
    let found = found
        .or_else(|| is::<reqwest_012::Error>(error))
        .or_else(|| is::<reqwest::Error<reqwest_012::Error>>(error));
    #[cfg(feature = "reqwest-013")]
    let found = found
        .or_else(|| is::<reqwest_013::Error>(error))
        .or_else(|| is::<reqwest::Error<reqwest_013::Error>>(error));
    found
}

fn is<E: Error + 'static>(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    error.downcast_ref::<E>().map(|error| error as _)
}
