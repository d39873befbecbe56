//! The mark of a call that gates on trial would have rejected.

use crate::Rejected;

/// A rejection that did not happen: an [audit](crate::gate::AuditLayer) leaves it in the extensions
/// of the request, for the handler, and in those of the response, for logs and outer layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldReject(pub Rejected);

/// The field in which a server tells the kind of that rejection, as
/// [`RejectedKind::as_str`](crate::RejectedKind::as_str) names it.
pub(crate) const WOULD_REJECT: &str = "x-would-reject";
