//! How long a call takes when none queues, as far as can be told from outside.
//!
//! Delay is judged against this time, and both obvious ways to find it fail. The *fastest call* is
//! a lucky one, such as a cache hit or a health check: against it all others look slow, and the
//! limit collapses. A *long average* creeps up during an overload until the queue looks normal, and
//! the limit grows without end. So this asks: it lowers the limit, and looks whether calls get
//! faster.
//!
//! - They do, about in proportion: there was a queue, and may still be one. The limit is lowered
//!   further.
//! - They do not: nothing queues any more, and what calls take now is the baseline.
//!
//! Such a *probe* takes two or three windows of some thirty, and some 2 % of the throughput. A
//! limit that has fallen for another reason is judged in the same way, which tells an upstream that
//! has become slow from one that is overloaded.

use std::time::Duration;

use crate::algorithm::adaptive::{
    Window,
    limit::{count, whole},
};

/// What calls take when none queues.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    /// In nanoseconds.
    rtt: Option<f64>,
    /// What calls took in the last window.
    last: Option<f64>,
    /// The limit that lower ones are compared with, and what calls took under it.
    mark: (f64, f64),
    /// The limit to return to, while probing.
    probing: Option<f64>,
    /// Loaded windows since the last probe.
    windows: u32,
    /// Probes so far.
    probes: u32,
}

/// What is to be done after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Steer by this baseline and the average round trip, both in nanoseconds.
    Steer(f64, f64),
    /// Set this limit, to probe or after a probe.
    Limit(f64),
    /// Nothing was timed.
    Stay,
}

impl Baseline {
    /// What calls take when none queues, once any was timed.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|nanos| Duration::from_secs_f64(nanos / 1e9))
    }

    pub(super) fn observe(&mut self, window: &Window) -> Next {
        let Some(rtt) = window.rtt else {
            return Next::Stay;
        };
        #[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
        let rtt = (rtt.as_nanos() as f64).max(1.0);
        let limit = count(window.limit);
        let baseline = self.rtt.get_or_insert(rtt);
        if window.limit == 1 {
            // None of ours can queue behind another.
            *baseline = rtt;
        } else if rtt < *baseline {
            // Half way: windows scatter, and the lowest of many would be too low.
            *baseline -= (*baseline - rtt) / 2.0;
        }
        let (marked, marked_rtt) = self.mark;
        if limit >= marked || (limit <= marked * LOWER && rtt > marked_rtt * CHANGED) {
            // Much slower with fewer calls: the upstream has changed, and nothing can be compared.
            self.mark = (limit, rtt);
        } else if limit > marked * LOWER {
            // With as many calls as there were they would take no less than they do now.
            self.mark.1 = marked_rtt.max(rtt);
        } else {
            self.mark = (limit, rtt);
            let queued = rtt < marked_rtt * FASTER && window.limit > 1;
            if !queued {
                if rtt > *baseline * STEADY {
                    // If that was a mistake it must not last: ask again soon.
                    self.probes = 0;
                }
                *baseline = rtt;
            } else if let Some(back) = self.probing {
                // Where calls still queued there is no need to return to more than that.
                self.probing = Some(back.min(marked));
                return Next::Limit(count(whole(limit * LOWER)));
            }
        }
        let (baseline, last) = (*baseline, self.last.replace(rtt));
        if let Some(back) = self.probing.take() {
            return Next::Limit(back);
        }
        // What is measured while the upstream changes is comparable with nothing.
        let is_steady = last.is_some_and(|last| rtt < last * STEADY && last < rtt * STEADY);
        self.probe_if_due(window, limit, is_steady)
            .unwrap_or(Next::Steer(baseline, rtt))
    }

    /// Gives up a probe: the upstream has said by itself that it has too much.
    pub(super) fn interrupt(&mut self) {
        self.probing = None;
        self.windows = 0;
    }

    /// Soon at first, because the very first windows may have been overloaded; then rarely.
    fn probe_if_due(&mut self, window: &Window, limit: f64, is_steady: bool) -> Option<Next> {
        // With a limit that holds no one back, a lower one would change nothing.
        if !window.was_full || window.limit <= 1 {
            return None;
        }
        self.windows += 1;
        let interval = MAX_INTERVAL.min(MIN_INTERVAL << self.probes.min(8));
        if self.windows < interval || !is_steady {
            return None;
        }
        self.windows = 0;
        self.probes = self.probes.saturating_add(1);
        self.probing = Some(limit);
        Some(Next::Limit(count(whole(limit * LOWER))))
    }
}

/// By how much a probe lowers the limit.
const LOWER: f64 = 0.7;

/// Faster than this, calls have gained from a limit lowered by that much: halfway between what a
/// queue would give and nothing.
const FASTER: f64 = 0.85;

/// Two windows in a row that differ by more are not of one state of the upstream.
const STEADY: f64 = 1.3;

/// Slower than this is more than windows scatter by.
const CHANGED: f64 = 1.4;

const MIN_INTERVAL: u32 = 4;
const MAX_INTERVAL: u32 = 24;
