//! The rules that find thresholds that do not fit an instance's traffic.
//!
//! Each rule is a recipe of the guide's page on tuning, and has a test.

use crate::{
    RejectedKind,
    algorithm::statistics::count_interval,
    observe::{
        Advice, Evidence, Histogram, Instance, State,
        case::{Case, is_spread, quantile_interval},
        rules_of_calls::{hedge, retry, throttle, timeout},
    },
};

/// Returns the advice on all instances.
pub(super) fn advise(all: &[(Instance, f64)]) -> Vec<Advice> {
    let mut advice = Vec::new();
    for (one, elapsed) in all {
        let case = Case {
            one,
            all,
            elapsed: elapsed.max(1e-3),
        };
        let found = match &one.state {
            State::CircuitBreaker(circuits) => case.circuit(circuits),
            State::Bulkhead { .. } => case.bulkhead(),
            State::RateLimit { .. } => case.rate_limit(),
            State::Retry {
                calls, attempts, ..
            } => retry(&case, calls, attempts),
            State::Timeout { total } => timeout(&case, *total),
            State::Hedge { sent, wins, delay } => hedge(&case, *sent, wins, *delay),
            State::Throttle { probability } => throttle(&case, *probability),
            _ => None,
        };
        advice.extend(found);
    }
    advice
}

impl Case<'_> {
    fn bulkhead(&self) -> Option<Advice> {
        let limit = self.config("limit")?;
        self.too_small(limit)
            .or_else(|| self.waits(limit))
            .or_else(|| self.too_large(limit))
    }

    fn too_small(&self, limit: f64) -> Option<Advice> {
        let totals = self.one.totals;
        let rejected = totals.rejected.of(RejectedKind::BulkheadFull);
        let share = self.seen((rejected, totals.admitted + rejected), 0.001);
        if share.share <= 0.001 {
            return None;
        }
        let advice = Advice {
            evidence: share.evidence,
            alert: Some("BulkheadNearlyFull"),
            ..self.advice("limit", format!("{limit:.0}"))
        };
        // If the upstream is slow under load, more load does not help.
        if let Some(good) = self.good().filter(|good| is_spread(good)) {
            return Some(Advice {
                reason: format!(
                    "it rejected {rejected} calls ({share}) while good answers take from {} s to {} s: the \
                     upstream is the bottleneck",
                    good.quantile(0.05).unwrap_or(0.0),
                    good.quantile(0.99).unwrap_or(0.0),
                ),
                ..advice
            });
        }
        if self.hang() > self.good().map_or(0.0, Histogram::sum) {
            return Some(Advice {
                reason: format!(
                    "it rejected {rejected} calls ({share}) while calls that were cut held most of its \
                     places: the upstream hangs, and no limit helps"
                ),
                ..advice
            });
        }
        Some(Advice {
            better: Some(format!("{:.0}", (limit * 1.5).ceil())),
            reason: format!(
                "it rejected {rejected} calls, {share}, while the upstream is fast{}",
                self.little()
            ),
            price: "half as many more at once; go back if the latency rises".into(),
            ..advice
        })
    }

    /// Advises on calls that wait for a permit.
    fn waits(&self, limit: f64) -> Option<Advice> {
        let admitted = self.one.totals.admitted;
        let waits = self.one.histograms.iter();
        let waited: u64 = waits
            .filter(|one| one.labels.first() == Some(&"admitted"))
            .map(Histogram::count)
            .sum();
        let share = self.seen((waited.min(admitted), admitted), 0.05);
        (share.share > 0.05).then(|| Advice {
            better: Some(format!("{:.0}", (limit * 1.5).ceil())),
            reason: format!(
                "{waited} of {admitted} calls, {share}, waited for a place{}",
                self.little()
            ),
            price: "half as many more at once; if the latency rises, a shorter max_wait instead"
                .into(),
            evidence: share.evidence,
            alert: Some("CallsWaitForPermits"),
            ..self.advice("limit", format!("{limit:.0}"))
        })
    }

    /// Returns how many calls run on average, in words, if that is known.
    fn little(&self) -> String {
        let running = self.good().map(|good| good.sum() / self.elapsed);
        running.map_or_else(String::new, |running| {
            format!("; by Little's law {running:.1} run on average")
        })
    }

    /// Advises on latency that grows with the load, under a limit far above what would otherwise
    /// run.
    fn too_large(&self, limit: f64) -> Option<Advice> {
        let good = self.good().filter(|good| is_spread(good))?;
        let rate = good.count() as f64 / self.elapsed;
        let (quiet, (least, most)) = (good.quantile(0.05)?, quantile_interval(good, 0.05)?);
        let (usual, _) = quantile_interval(good, 0.5)?;
        let better = (2.0 * rate * quiet).ceil().max(2.0);
        // Buckets are wide, so the intervals of few calls are too.
        let evidence = match usual >= 4.0 * most {
            true => Evidence::Enough,
            false => Evidence::MoreDays(1),
        };
        (limit >= 2.0 * better && limit < UNLIMITED).then(|| Advice {
            better: Some(format!("{better:.0}")),
            reason: format!(
                "good answers take {quiet} s ({least} to {most}) at a quiet moment and {} s under load: \
                 {rate:.1} a second need {:.1} places ({:.1} to {:.1}), and {limit:.0} let the upstream \
                 queue",
                good.quantile(0.99).unwrap_or(f64::INFINITY),
                rate * quiet,
                rate * least,
                rate * most,
            ),
            price: "calls above that are rejected at once in peaks".into(),
            evidence,
            alert: Some("BulkheadLetsQueue"),
            ..self.advice("limit", format!("{limit:.0}"))
        })
    }

    fn rate_limit(&self) -> Option<Advice> {
        let totals = self.one.totals;
        let (admitted, rejected) = (totals.admitted, totals.rejected.local());
        let all = admitted + rejected;
        let share = self.seen((rejected, all), 0.01);
        if share.share <= 0.01 {
            return None;
        }
        let (Some(rate), Some(burst)) = (self.config("rate"), self.config("burst")) else {
            return None;
        };
        let (low, high) = count_interval(all);
        let [offered, low, high] = [all as f64, low, high].map(|calls| calls / self.elapsed);
        // Whether it is the rate or the burst depends on which side of the rate the calls are.
        let evidence = share.evidence.and(match (low..=high).contains(&rate) {
            true => Evidence::MoreDays(1),
            false => Evidence::Enough,
        });
        let seen = format!("it rejected {rejected} of {all} calls, {share}");
        let advice = Advice {
            evidence,
            alert: Some("RateLimitRejects"),
            ..self.advice("rate", format!("{rate:.1}/s"))
        };
        if offered > rate {
            return Some(Advice {
                reason: format!(
                    "{seen}: {offered:.1} a second come ({low:.1} to {high:.1}), more than {rate:.1}. Ask \
                     heavy_hitters whose they are"
                ),
                ..advice
            });
        }
        let better = (burst * 2.0).max(rate.ceil());
        Some(Advice {
            setting: "burst",
            now: format!("{burst:.0}"),
            better: Some(format!("{better:.0}")),
            reason: format!(
                "{seen}, though only {offered:.1} a second come ({low:.1} to {high:.1}) and {rate:.1} are \
                 allowed"
            ),
            price: "the upstream gets so many at once; a replay tells the exact burst".into(),
            ..advice
        })
    }
}

/// The value of a limit that is off.
const UNLIMITED: f64 = 1e15;
