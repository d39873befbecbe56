//! A line for each key that somebody waits for.
//!
//! One line for all keys would let a key that is over its limit hold up those that are not. So a
//! line is made when the first call of a key has to wait, and forgotten when the last has left. The
//! mutex orders these two; a call of a key that nobody waits for reads one word, or takes one
//! look-up in a map that readers do not write to.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use papaya::{HashMap, ResizeMode};

use crate::rate_limit::line::{Line, Place};

#[derive(Debug)]
pub(super) struct Lines {
    lines: HashMap<u64, Arc<Line>>,
    /// How many lines there are. Relaxed: as a line's own count, it only tells newcomers where to
    /// look.
    count: AtomicUsize,
    /// Held to make a line and to forget one.
    changing: Mutex<()>,
}

impl Default for Lines {
    fn default() -> Self {
        let lines = HashMap::builder().resize_mode(ResizeMode::Blocking).build();
        Self {
            lines,
            count: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }
}

impl Lines {
    /// The line of a key, if anybody waits in it.
    pub(super) fn find(&self, key: u64) -> Option<Arc<Line>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lines.pin().get(&key).cloned()
    }

    /// Joins the key's line, made for this if there is none.
    ///
    /// # Errors
    /// What `join` fails with.
    pub(super) fn join<E>(
        &self,
        key: u64,
        join: impl FnOnce(&Line) -> Result<Place, E>,
    ) -> Result<(Arc<Line>, Place), E> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = self.lines.pin();
        if let Some(line) = lines.get(&key) {
            return join(line).map(|place| (line.clone(), place));
        }
        let line = Arc::new(Line::default());
        let place = join(&line)?;
        lines.insert(key, line.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok((line, place))
    }

    /// After somebody has left the key's line: forgets it if that was the last.
    pub(super) fn left(&self, key: u64, line: &Line) {
        if !line.is_empty() {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = self.lines.pin();
        // Another may have joined it meanwhile, or forgotten it, and a third have made another.
        if lines.get(&key).is_some_and(|line| line.is_empty()) && lines.remove(&key).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn look_again(&self) {
        self.lines.pin().values().for_each(|line| line.look_again());
    }

    /// How many wait, for whatever key.
    pub(super) fn waiting(&self) -> usize {
        self.lines.pin().values().map(|line| line.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Rate, TokenBucket};

    #[test]
    fn a_line_is_forgotten_with_the_last_who_leaves_it_and_not_if_another_has_just_joined() {
        let (lines, limit) = (
            Lines::default(),
            TokenBucket::new(Rate::per_second(1), 1).unwrap(),
        );
        let join = || {
            lines
                .join(7, |line| line.join(&limit, 1, u64::MAX, 9, 0))
                .unwrap()
        };
        // given: one who has left, and not yet said so.
        let (line, place) = join();
        line.cancel(&limit, place, 0);
        // when: another joins, and then it is said.
        let (_, place) = join();
        lines.left(7, &line);
        // then
        assert_eq!(
            (lines.find(7).map(|line| line.len()), lines.waiting()),
            (Some(1), 1)
        );
        line.cancel(&limit, place, 0);
        lines.left(7, &line);
        lines.left(7, &line);
        assert_eq!(
            (
                lines.find(7).is_none(),
                lines.count(),
                lines.count.into_inner()
            ),
            (true, 0, 0)
        );
    }

    #[test]
    fn nobody_who_may_not_wait_leaves_a_line_behind() {
        let (lines, limit) = (
            Lines::default(),
            TokenBucket::new(Rate::per_second(1), 1).unwrap(),
        );
        assert!(lines.join(7, |line| line.join(&limit, 1, 0, 0, 0)).is_err());
        assert!(lines.find(7).is_none() && lines.count() == 0);
    }
}
