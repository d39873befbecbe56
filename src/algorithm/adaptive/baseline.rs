//! Estimates how long a call takes when none queues, from the outside.
//!
//! Delay is judged against this time, and both obvious ways to find it fail. The *fastest call* is
//! a lucky one, such as a cache hit or a health check. Against it all others look slow, and the
//! limit collapses. A *long average* creeps up during an overload until the queue looks normal, and
//! the limit grows without end. So this probes: it lowers the limit, and measures whether calls get
//! faster.
//!
//! - They do, about in proportion: there was a queue, and may still be one. The limit is lowered
//!   further.
//! - They do not: nothing queues any more, and the present round trip is the baseline.
//!
//! A *probe* takes two or three windows of some thirty, and some 2 % of the throughput. A limit
//! that has fallen for another reason is judged in the same way. That tells an upstream that has
//! become slow from an overloaded one.

use std::time::Duration;

use crate::algorithm::adaptive::{
    Window,
    limit::{count, whole},
};

/// The round trip of a call that does not queue, and the probes that measure it.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    /// The estimate, in nanoseconds.
    rtt: Option<f64>,
    /// The round trip of the last window.
    last: Option<f64>,
    /// The limit that lower ones are compared with, and the round trip under it.
    mark: (f64, f64),
    /// The limit to return to, while probing.
    probing: Option<f64>,
    /// Loaded windows since the last probe.
    windows: u32,
    /// Probes so far.
    probes: u32,
}

/// The next step after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Steer by this baseline and the average round trip, both in nanoseconds.
    Steer(f64, f64),
    /// Set this limit, to probe or after a probe.
    Limit(f64),
    /// Keep the limit: no call was timed.
    Stay,
}

impl Baseline {
    /// Returns the round trip of a call that does not queue, once a call was timed.
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
            // No call of ours can queue behind another.
            *baseline = rtt;
        } else if rtt < *baseline {
            // Halfway: windows scatter, and the lowest of many would be too low.
            *baseline -= (*baseline - rtt) / 2.0;
        }
        let (marked, marked_rtt) = self.mark;
        if limit >= marked || (limit <= marked * LOWER && rtt > marked_rtt * CHANGED) {
            // Much slower with fewer calls: the upstream has changed, and the mark is void.
            self.mark = (limit, rtt);
        } else if limit > marked * LOWER {
            // At the marked limit, which is higher, calls would take at least as long as now.
            self.mark.1 = marked_rtt.max(rtt);
        } else {
            self.mark = (limit, rtt);
            let queued = rtt < marked_rtt * FASTER && window.limit > 1;
            if !queued {
                if rtt > *baseline * STEADY {
                    // If this is a mistake it must not last: probe again soon.
                    self.probes = 0;
                }
                *baseline = rtt;
            } else if let Some(back) = self.probing {
                // Calls still queued under the marked limit, so the limit need not return above it.
                self.probing = Some(back.min(marked));
                return Next::Limit(count(whole(limit * LOWER)));
            }
        }
        let (baseline, last) = (*baseline, self.last.replace(rtt));
        if let Some(back) = self.probing.take() {
            return Next::Limit(back);
        }
        // A round trip measured while the upstream changes cannot be compared.
        let is_steady = last.is_some_and(|last| rtt < last * STEADY && last < rtt * STEADY);
        self.probe_if_due(window, limit, is_steady)
            .unwrap_or(Next::Steer(baseline, rtt))
    }

    /// Gives up a probe, because failures have moved the limit.
    pub(super) fn interrupt(&mut self) {
        self.probing = None;
        self.windows = 0;
    }

    /// Starts a probe if one is due: soon at first, because the first windows may have been
    /// overloaded, later rarely.
    fn probe_if_due(&mut self, window: &Window, limit: f64, is_steady: bool) -> Option<Next> {
        // A limit that holds no caller back: a lower one would change nothing.
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

/// The factor by which a probe lowers the limit.
const LOWER: f64 = 0.7;

/// The factor below which a round trip has gained from a limit lowered by [`LOWER`]. It is halfway
/// between the factor of a queue, 0.7, and no gain.
const FASTER: f64 = 0.85;

/// The factor by which two windows in a row may differ while the upstream does not change.
const STEADY: f64 = 1.3;

/// The factor above which a longer round trip is more than scatter.
const CHANGED: f64 = 1.4;

const MIN_INTERVAL: u32 = 4;
const MAX_INTERVAL: u32 = 24;
