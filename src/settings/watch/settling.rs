//! The decision when a text is accepted: facts in, decisions out.
//!
//! A file that is being saved is empty or cut off for a moment, and such a text may be valid. So a
//! text is accepted only after two equal readings some time apart, equal in length and time of
//! change too. Its writer must also have closed the file, if the system reports that. So a pause of
//! the writer does no harm, however long.

use std::time::Duration;

use super::file::{Reading, Stamp};

/// The last reading, and the accepted one.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// The last reading, and when it was first seen.
    seen: Option<(Reading, u64)>,
    taken: Option<Reading>,
    /// The last write of a writer that has not closed the file since.
    writing: Option<u64>,
}

/// The step after a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing to do: the reading means the same as the accepted one.
    Nothing,
    /// Read again after this time.
    Again(Duration),
    /// Accept it.
    Take,
}

impl Settling {
    /// Notes that a writer has written and has the file open.
    pub(super) fn written(&mut self, now: u64) {
        self.writing = Some(now);
    }

    /// Notes that a writer has closed the file.
    pub(super) fn closed(&mut self) {
        self.writing = None;
    }

    /// Decides on a reading of the file.
    pub(super) fn read(&mut self, reading: Reading, now: u64) -> Next {
        let since = match &self.seen {
            Some((seen, since)) if *seen == reading => *since,
            _ => now,
        };
        let is_taken = self.taken.as_ref().is_some_and(|one| one.means(&reading));
        let is_text = matches!(reading, Reading::Text { .. });
        self.seen = Some((reading, since));
        let left = |since: u64, wait: Duration| {
            wait.saturating_sub(Duration::from_nanos(now.saturating_sub(since)))
        };
        let unsettled = left(since, APART);
        if !unsettled.is_zero() {
            return Next::Again(unsettled);
        }
        if is_taken {
            return Next::Nothing;
        }
        // An unreadable file has no writer worth waiting for.
        let written = self.writing.filter(|_| is_text);
        let unclosed = written.map_or(Duration::ZERO, |written| left(written, PATIENCE));
        if !unclosed.is_zero() {
            return Next::Again(unclosed);
        }
        self.taken = self.seen.as_ref().map(|(seen, _)| seen.clone());
        Next::Take
    }

    /// Returns the reading that was accepted last: a text, or the reason for none.
    pub(super) fn taken(&self) -> Option<&Reading> {
        self.taken.as_ref()
    }

    /// Returns whether a file with this stamp is the one read last, with nothing left to do.
    pub(super) fn is_settled(&self, stamp: Option<Stamp>) -> bool {
        let seen = self.seen.as_ref().map(|(seen, _)| seen);
        let settled = seen.zip(self.taken.as_ref());
        settled.is_some_and(|(seen, taken)| seen.means(taken))
            && stamp.is_some()
            && stamp == seen.and_then(Reading::stamp)
    }
}

/// The time between two equal readings before the second is accepted.
pub(super) const APART: Duration = Duration::from_millis(100);
/// The longest wait for a writer that keeps the file open without writing.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::clock::nanos;

    fn text(text: &str) -> Reading {
        Reading::Text {
            stamp: Stamp::of(std::path::Path::new("/")).unwrap(),
            text: text.to_owned(),
        }
    }

    fn millis(millis: u64) -> u64 {
        nanos(Duration::from_millis(millis))
    }

    fn again(millis: u64) -> Next {
        Next::Again(Duration::from_millis(millis))
    }

    #[test]
    fn a_text_is_taken_when_two_readings_are_equal() {
        let mut settling = Settling::default();
        assert_eq!(settling.read(text("a"), millis(0)), again(100));
        assert_eq!(settling.read(text("a"), millis(40)), again(60));
        // Another reading in between starts the wait again.
        assert_eq!(settling.read(text("b"), millis(99)), again(100));
        assert_eq!(settling.read(text("a"), millis(150)), again(100));
        assert_eq!(settling.read(text("a"), millis(250)), Next::Take);
        assert_eq!(settling.taken(), Some(&text("a")));
        assert_eq!(settling.read(text("a"), millis(300)), Next::Nothing);
    }

    #[test]
    fn an_open_file_is_taken_when_it_is_closed() {
        let mut settling = Settling::default();
        settling.written(millis(0));
        assert_eq!(settling.read(text("a"), millis(1000)), again(100));
        assert_eq!(settling.read(text("a"), millis(2000)), again(28_000));
        settling.closed();
        assert_eq!(settling.read(text("a"), millis(2001)), Next::Take);
        // A writer that never closes the file is waited for only so long.
        settling.written(millis(3000));
        assert_eq!(settling.read(text("b"), millis(3000)), again(100));
        assert_eq!(settling.read(text("b"), millis(32_999)), again(1));
        assert_eq!(settling.read(text("b"), millis(33_000)), Next::Take);
    }

    #[test]
    fn a_file_that_is_missing_for_a_moment_is_no_error() {
        let mut settling = Settling::default();
        let missing = || Reading::Failed("missing".to_owned());
        settling.read(text("a"), millis(0));
        assert_eq!(settling.read(text("a"), millis(100)), Next::Take);
        assert_eq!(settling.read(missing(), millis(200)), again(100));
        assert_eq!(settling.read(text("a"), millis(250)), again(100));
        assert_eq!(settling.read(text("a"), millis(350)), Next::Nothing);
        settling.written(millis(400));
        assert_eq!(settling.read(missing(), millis(400)), again(100));
        assert_eq!(settling.read(missing(), millis(500)), Next::Take);
    }
}
