//! The mark of a call that audited gates would have rejected.

use crate::Rejected;

/// A rejection that did not happen. An [audit](crate::gate::AuditLayer) adds it to the extensions
/// of the request, for the handler, and to those of the response, for logs and outer layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldReject(pub Rejected);

/// The field with which a server reports the kind of that rejection, as
/// [`RejectedKind::as_str`](crate::RejectedKind::as_str) names it.
pub(crate) const WOULD_REJECT: &str = "x-would-reject";
