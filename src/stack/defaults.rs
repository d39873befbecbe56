//! The defaults of stacks: the reasons are told at the setters.

use std::time::Duration;

/// The total timeout of a client's call, with all its attempts.
pub(crate) const TOTAL: Duration = Duration::from_secs(10);
/// The timeout of one attempt.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// When those that a busy server rejects are to come back, on average a little later. So short that
/// a blip costs them little, and their coming together again costs the server more than that.
pub(crate) const BUSY: Duration = Duration::from_secs(1);
/// The timeout of a server's call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
