//! A recorded call, and its 32 bytes.

/// A call as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The start, in nanoseconds since 1970.
    pub start: u64,
    /// The time until its end, in nanoseconds, at most 78 hours.
    pub duration: u64,
    /// The way in which it ended.
    pub end: End,
    /// The units that it cost, 1 if unknown.
    pub cost: u32,
    /// A hash of its key, such as a client's address, or 0 without a key.
    pub key: u64,
    /// A hash of the host that it went to, or 0 without a host.
    pub host: u32,
    /// If true, the log has only the second. The start lies somewhere within it.
    pub is_coarse: bool,
}

/// The end of a recorded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// A success.
    Success,
    /// A failure.
    Failure,
    /// The upstream was overloaded (429 or 529).
    Overload,
    /// The caller left before the answer.
    Cancelled,
    /// The call did not reach the upstream: a layer or a proxy rejected it.
    Rejected,
}

impl Call {
    /// Makes a successful call of cost 1 without a key.
    #[must_use]
    pub fn new(start: u64, duration: u64) -> Self {
        Self {
            start,
            duration: duration.min(LONGEST),
            end: End::Success,
            cost: 1,
            key: 0,
            host: 0,
            is_coarse: false,
        }
    }

    /// Returns the end, in nanoseconds since 1970.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.start.saturating_add(self.duration)
    }

    /// Returns whether the upstream answered with a failure or an overload.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self.end, End::Failure | End::Overload)
    }

    /// Returns whether the upstream answered with a success.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.end == End::Success
    }

    /// Returns the call as a [recording](crate::replay::Recorder) stores it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let flags = u64::from(self.end.code()) << 48 | u64::from(self.is_coarse) << 52;
        let words = [
            self.start,
            self.duration.min(LONGEST) | flags,
            self.key,
            u64::from(self.host) | u64::from(self.cost) << 32,
        ];
        into_bytes(words)
    }

    /// Reads a call, or `None` if the bytes are not a call.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let [start, timing, key, rest] = words_of(bytes);
        if timing >> 53 != 0 {
            return None;
        }
        Some(Self {
            start,
            duration: timing & LONGEST,
            end: End::from_code(timing >> 48 & 15)?,
            cost: half(rest >> 32),
            key,
            host: half(rest),
            is_coarse: timing >> 52 & 1 == 1,
        })
    }
}

impl End {
    /// All ends, in the order of their codes.
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Failure,
        Self::Overload,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Returns its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Overload => "overload",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Success => 1,
            Self::Failure => 2,
            Self::Overload => 3,
            Self::Cancelled => 4,
            Self::Rejected => 5,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|end| u64::from(end.code()) == code)
    }
}

/// Returns the mark for calls that the ring had no room for, with their number and the time.
pub(super) fn lost_mark(count: u64, at: u64) -> [u8; SIZE] {
    into_bytes([at, LOST << 48, count, 0])
}

/// Reads such a mark.
pub(super) fn lost_in(bytes: &[u8; SIZE]) -> Option<u64> {
    let [_, timing, count, _] = words_of(bytes);
    (timing == LOST << 48).then_some(count)
}

fn into_bytes(words: [u64; 4]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words_of(bytes: &[u8; SIZE]) -> [u64; 4] {
    std::array::from_fn(|number| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[number * 8..number * 8 + 8]);
        u64::from_le_bytes(word)
    })
}

#[expect(clippy::cast_possible_truncation, reason = "takes a word apart")]
fn half(word: u64) -> u32 {
    word as u32
}

/// Returns a hash of half the size. 0 stays 0, and no other value becomes 0.
pub(super) fn folded(hash: u64) -> u32 {
    let half = u32::try_from((hash ^ hash >> 32) & u64::from(u32::MAX)).unwrap_or(1);
    if hash == 0 { 0 } else { half.max(1) }
}

/// The bytes of a recorded call.
pub(super) const SIZE: usize = 32;
/// The longest duration, in nanoseconds: 48 bits.
const LONGEST: u64 = (1 << 48) - 1;
/// The code of a mark that calls were lost.
const LOST: u64 = 15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_call_survives_its_bytes(
            start: u64, duration in 0..LONGEST, end in 0usize..5, cost: u32, key: u64, host: u32,
            is_coarse: bool,
        ) {
            let end = End::ALL[end];
            let call = Call { start, duration, end, cost, key, host, is_coarse };
            prop_assert_eq!(Call::from_bytes(&call.to_bytes()), Some(call));
            prop_assert_eq!(lost_in(&call.to_bytes()), None);
        }

        #[test]
        fn any_bytes_are_a_call_or_none(bytes: [u8; SIZE]) {
            if let Some(call) = Call::from_bytes(&bytes) {
                prop_assert_eq!(call.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_mark_is_no_call(count: u64, at: u64) {
            let mark = lost_mark(count, at);
            prop_assert_eq!(lost_in(&mark), Some(count));
            prop_assert_eq!(Call::from_bytes(&mark), None);
        }
    }
}
