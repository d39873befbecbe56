//! The body of a rejection, as a client reads it.

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::rejection_body::{BLANK, QUOTA_EXCEEDED, REDUCED_CAPACITY};

/// The problem details (RFC 9457) of a response whose `Content-Type` is `application/problem+json`,
/// from [`Server::problem_json`](super::Server::problem_json) or from other servers.
///
/// Members that are missing or of the wrong type are left out, as the RFC demands. Unknown members
/// are ignored.
///
/// ```
/// use tower_keep::protocol::http::{Problem, ProblemType};
///
/// let json = r#"{
///     "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
///     "title": "Too Many Requests", "status": 429, "violated-policies": ["hourly"]
/// }"#;
/// let problem: Problem = serde_json::from_str(json)?; // with reqwest: `response.json().await?`
/// assert_eq!(problem.problem_type(), ProblemType::QuotaExceeded);
/// assert_eq!(problem.violated_policies, ["hourly"]);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Problem {
    /// A URI that names the type: see [`problem_type`](Self::problem_type). `about:blank` if none
    /// is given.
    #[serde(rename = "type", deserialize_with = "type_or_blank")]
    pub uri: String,
    /// The type in words.
    #[serde(deserialize_with = "lenient")]
    pub title: Option<String>,
    /// The response's status.
    #[serde(deserialize_with = "lenient")]
    pub status: Option<u16>,
    /// The problem of this response in words.
    #[serde(deserialize_with = "lenient")]
    pub detail: Option<String>,
    /// Seconds until the client may come back, as written by servers of this crate.
    #[serde(deserialize_with = "lenient")]
    pub retry_after: Option<u64>,
    /// The names of the policies that the request violates, as in `RateLimit-Policy`.
    #[serde(rename = "violated-policies", deserialize_with = "lenient")]
    pub violated_policies: Vec<String>,
}

/// The type of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemType {
    /// The caller has sent more than a quota allows.
    QuotaExceeded,
    /// The server can do less than usual for now.
    TemporaryReducedCapacity,
    /// The caller's requests look like a mistake or an attack. Come back when that is fixed.
    AbnormalUsageDetected,
    /// No more information than the status: `about:blank`.
    Blank,
    /// A type of the server's own.
    Other,
}

impl Problem {
    /// Returns the type, if it is a known one.
    #[must_use]
    pub fn problem_type(&self) -> ProblemType {
        match &*self.uri {
            QUOTA_EXCEEDED => ProblemType::QuotaExceeded,
            REDUCED_CAPACITY => ProblemType::TemporaryReducedCapacity,
            ABNORMAL_USAGE => ProblemType::AbnormalUsageDetected,
            BLANK => ProblemType::Blank,
            _ => ProblemType::Other,
        }
    }
}

impl Default for Problem {
    fn default() -> Self {
        Self {
            uri: BLANK.into(),
            title: None,
            status: None,
            detail: None,
            retry_after: None,
            violated_policies: Vec::new(),
        }
    }
}

/// A member, if it has the expected type.
#[derive(Deserialize)]
#[serde(untagged)]
enum Member<T> {
    Fits(T),
    Other(IgnoredAny),
}

fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(match Member::deserialize(deserializer)? {
        Member::Fits(value) => value,
        Member::Other(_) => T::default(),
    })
}

fn type_or_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let uri: Option<String> = lenient(deserializer)?;
    Ok(uri.unwrap_or_else(|| BLANK.into()))
}

const ABNORMAL_USAGE: &str =
    "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
