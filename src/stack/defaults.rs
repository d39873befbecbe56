//! What stacks are made with unless told otherwise: the reasons are told at the setters.

use std::time::Duration;

/// Of a client's call, with all its attempts.
pub(crate) const TOTAL: Duration = Duration::from_secs(10);
/// Of one attempt.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// To each host.
pub(crate) const MAX_IN_FLIGHT: usize = 100;
/// Of a server's call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
