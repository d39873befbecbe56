//! The rules that find thresholds that do not fit an instance's traffic.
//!
//! Each rule is a recipe of the guide's page on tuning, and has a test.

use crate::{
    RejectedKind,
    algorithm::{BreakerState, Cause, Counts},
    observe::{
        Advice, Circuits, Histogram, Instance, State,
        case::{Case, above, is_spread},
        rules_of_calls::{hedge, retry, throttle, timeout},
    },
    statistics::{binomial_tail, calls_for, least_to_reach, share_interval, whole},
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
    fn circuit(&self, circuits: &Circuits) -> Option<Advice> {
        let totals = self.one.totals;
        let answered = totals.success + totals.failure + totals.overload;
        let bad = totals.failure + totals.overload;
        let base = bad as f64 / answered.max(1) as f64;
        let opened = |cause: Cause| -> u64 {
            let all = circuits.transitions.iter();
            all.filter(|(from, to, why, _)| {
                *from == BreakerState::Closed && *to == BreakerState::Open && *why == cause
            })
            .map(|(.., count)| count)
            .sum()
        };
        let window = circuits.window.unwrap_or_default();
        let by_rate = opened(Cause::FailureRate);
        self.never_opens(window)
            .or_else(|| self.opens_late(window))
            .or_else(|| self.opens_by_chance(by_rate, (bad, answered)))
            .or_else(|| self.opens_by_slow(opened(Cause::SlowRate), base, window))
            .or_else(|| self.hangs(opened(Cause::NoAnswer)))
            .or_else(|| self.comes_late(totals.late, answered))
    }

    fn never_opens(&self, window: Counts) -> Option<Advice> {
        let (rate, calls) = (self.config("failure_rate")?, self.config("min_calls")?);
        let held = window.total();
        if held < 10 || held as f64 >= calls || window.failure_rate() < rate {
            return None;
        }
        let better = (held / 2).max(10);
        let n = better;
        Some(Advice {
            better: Some(better.to_string()),
            reason: format!(
                "{:.0} % of the window's calls fail, and it stays closed: the window holds {held} calls",
                window.failure_rate() * 100.0
            ),
            price: format!(
                "at a base rate of 5 % one window of {n} in {} trips by chance",
                one_in(binomial_tail(n, least_to_reach(n, rate), 0.05))
            ),
            alert: Some("CircuitNearThreshold"),
            ..self.advice("min_calls", whole(calls).to_string())
        })
    }

    fn opens_late(&self, window: Counts) -> Option<Advice> {
        let length = self.config("window")?;
        let held = window.total();
        if held < 1000 || length < 60.0 {
            return None;
        }
        let better = (length * 100.0 / held as f64).max(10.0).ceil();
        Some(Advice {
            better: Some(format!("{better}s")),
            reason: format!(
                "the window holds {held} calls of {length} s: an outage opens it only once it outweighs \
                 them"
            ),
            price: format!(
                "an outage is noticed some {:.0} s earlier, and the window begins anew",
                (length - better) * self.config("failure_rate").unwrap_or(0.5)
            ),
            alert: Some("CircuitNearThreshold"),
            ..self.advice("window", format!("{length}s"))
        })
    }

    fn opens_by_chance(&self, opened: u64, (bad, answered): (u64, u64)) -> Option<Advice> {
        let (rate, calls) = (
            self.config("failure_rate")?,
            whole(self.config("min_calls")?),
        );
        let base = bad as f64 / answered.max(1) as f64;
        let by_chance = binomial_tail(calls, least_to_reach(calls, rate), base);
        if opened == 0 || base >= rate * 0.9 || by_chance < 1e-4 {
            return None;
        }
        let (low, high) = share_interval(bad, answered);
        let better = calls_for(&MIN_CALLS, (rate, base), QUIET);
        let seconds = |calls: u64| calls as f64 * self.elapsed / answered.max(1) as f64;
        let reason = format!(
            "it opened {opened} times, and at a base rate of {:.1} % ({:.1} to {:.1}) one window of {calls} \
             calls in {} does by chance",
            base * 100.0,
            low * 100.0,
            high * 100.0,
            one_in(by_chance),
        );
        let was = calls.to_string();
        let Some(better) = better.filter(|better| u64::from(*better) > calls) else {
            return Some(Advice {
                better: Some(format!("{:.2}", (rate + 0.1).min(1.0))),
                reason: format!("{reason}: no number of calls helps so close to the threshold"),
                price: "an outage must be so much worse to open it".into(),
                alert: Some("CircuitOpen"),
                ..self.advice("failure_rate", format!("{rate:.2}"))
            });
        };
        let n = u64::from(better);
        let chances =
            [low, base, high].map(|base| one_in(binomial_tail(n, least_to_reach(n, rate), base)));
        Some(Advice {
            better: Some(better.to_string()),
            reason,
            price: format!(
                "of {better} calls one window in {} does ({} to {}), and an outage is noticed up to {:.1} s \
                 later",
                chances[1],
                chances[2],
                chances[0],
                seconds(n) - seconds(calls),
            ),
            alert: Some("CircuitOpen"),
            ..self.advice("min_calls", was)
        })
    }

    fn opens_by_slow(&self, opened: u64, base: f64, window: Counts) -> Option<Advice> {
        let (rate, after) = (self.config("slow_rate")?, self.config("slow_after")?);
        if opened == 0 || base > 0.1 {
            return None;
        }
        let seen = self.good().map(|good| above(good, after));
        let held = (window.total() >= 20).then(|| window.slow_rate());
        let share = seen.or(held);
        let better = share
            .map_or(rate + 0.25, |share| share + 0.1)
            .clamp(rate + 0.05, 1.0);
        Some(Advice {
            better: Some(format!("{better:.2}")),
            reason: format!(
                "it opened {opened} times because calls took {after} s or more, though only {:.1} % fail",
                base * 100.0
            ),
            price: match share {
                Some(share) => format!("{:.0} % of the good answers take that long", share * 100.0),
                None => "look at tower_keep_circuit_breaker_slow_ratio of a usual day first".into(),
            },
            alert: Some("CircuitOpen"),
            ..self.advice("slow_rate", format!("{rate:.2}"))
        })
    }

    fn hangs(&self, opened: u64) -> Option<Advice> {
        (opened > 0).then(|| Advice {
            reason: format!(
                "it opened {opened} times because calls were dropped and none was answered: the upstream \
                 hangs, and no threshold helps"
            ),
            alert: Some("CircuitOpen"),
            ..self.advice("open_on_no_answer", "true".into())
        })
    }

    fn comes_late(&self, late: u64, answered: u64) -> Option<Advice> {
        let open_for = self.config("open_for")?;
        (late * 100 > answered && late > 10).then(|| Advice {
            reason: format!(
                "{late} results came after the state that admitted them, of {answered} in time: an \
                 attempt's timeout below {open_for} s ends that"
            ),
            ..self.advice("open_for", format!("{open_for}s"))
        })
    }

    fn bulkhead(&self) -> Option<Advice> {
        let limit = self.config("limit")?;
        let totals = self.one.totals;
        let rejected = totals.rejected.of(RejectedKind::BulkheadFull);
        let waits = self.one.histograms.iter();
        let waited: u64 = waits
            .filter(|one| one.labels.first() == Some(&"admitted"))
            .map(Histogram::count)
            .sum();
        let up = format!("{:.0}", (limit * 1.5).ceil());
        let running = self.good().map(|good| good.sum() / self.elapsed);
        let little = running.map_or_else(String::new, |running| {
            format!("; by Little's law {running:.1} run on average")
        });
        if rejected * 1000 > totals.admitted + rejected {
            // If the upstream is slow under load, more load does not help.
            if let Some(good) = self.good().filter(|good| is_spread(good)) {
                return Some(Advice {
                    reason: format!(
                        "it rejected {rejected} calls while good answers take from {} s to {} s: the \
                         upstream is the bottleneck",
                        good.quantile(0.05).unwrap_or(0.0),
                        good.quantile(0.99).unwrap_or(0.0),
                    ),
                    alert: Some("BulkheadNearlyFull"),
                    ..self.advice("limit", format!("{limit:.0}"))
                });
            }
            let (low, high) = share_interval(rejected, totals.admitted + rejected);
            return Some(Advice {
                better: Some(up),
                reason: format!(
                    "it rejected {rejected} calls ({:.2} to {:.2} %) while the upstream is fast{little}",
                    low * 100.0,
                    high * 100.0
                ),
                price: "half as many more at once; go back if the latency rises".into(),
                alert: Some("BulkheadNearlyFull"),
                ..self.advice("limit", format!("{limit:.0}"))
            });
        }
        if waited * 20 > totals.admitted && waited > 0 {
            return Some(Advice {
                better: Some(up),
                reason: format!(
                    "{waited} of {} calls waited for a place{little}",
                    totals.admitted
                ),
                price:
                    "half as many more at once; if the latency rises, a shorter max_wait instead"
                        .into(),
                alert: Some("BulkheadNearlyFull"),
                ..self.advice("limit", format!("{limit:.0}"))
            });
        }
        self.too_large(limit)
    }

    /// Advises on latency that grows with the load, under a limit far above what would otherwise
    /// run.
    fn too_large(&self, limit: f64) -> Option<Advice> {
        let good = self.good().filter(|good| is_spread(good))?;
        let quiet = good.quantile(0.05)?;
        let rate = good.count() as f64 / self.elapsed;
        let better = (2.0 * rate * quiet).ceil().max(2.0);
        (limit >= 2.0 * better && limit < UNLIMITED).then(|| Advice {
            better: Some(format!("{better:.0}")),
            reason: format!(
                "good answers take {} s at a quiet moment and {} s under load: {rate:.1} a second need {:.1} \
                 places, and {limit:.0} let the upstream queue",
                quiet,
                good.quantile(0.99).unwrap_or(f64::INFINITY),
                rate * quiet,
            ),
            price: "calls above that are rejected at once in peaks".into(),
            ..self.advice("limit", format!("{limit:.0}"))
        })
    }

    fn rate_limit(&self) -> Option<Advice> {
        let totals = self.one.totals;
        let (admitted, rejected) = (totals.admitted, totals.rejected.local());
        let all = admitted + rejected;
        if rejected * 100 <= all {
            return None;
        }
        let (low, high) = share_interval(rejected, all);
        let share = format!(
            "it rejected {rejected} of {all} calls ({:.1} to {:.1} %)",
            low * 100.0,
            high * 100.0
        );
        let (Some(rate), Some(burst)) = (self.config("rate"), self.config("burst")) else {
            return None;
        };
        let offered = all as f64 / self.elapsed;
        if offered > rate {
            return Some(Advice {
                reason: format!(
                    "{share}: {offered:.1} a second come, more than {rate:.1}. Ask heavy_hitters whose they \
                     are"
                ),
                alert: Some("RateLimitRejects"),
                ..self.advice("rate", format!("{rate:.1}/s"))
            });
        }
        let better = (burst * 2.0).max(rate.ceil());
        Some(Advice {
            better: Some(format!("{better:.0}")),
            reason: format!(
                "{share}, though only {offered:.1} a second come and {rate:.1} are allowed"
            ),
            price: "the upstream gets so many at once; a replay tells the exact burst".into(),
            alert: Some("RateLimitRejects"),
            ..self.advice("burst", format!("{burst:.0}"))
        })
    }
}

fn one_in(probability: f64) -> String {
    if probability < 1e-9 {
        "a thousand million".into()
    } else {
        format!("{:.0}", 1.0 / probability)
    }
}

const MIN_CALLS: [u32; 8] = [10, 20, 30, 50, 75, 100, 200, 400];
/// The value of a limit that is off.
const UNLIMITED: f64 = 1e15;
/// The probability of a trip by chance that is acceptable per window.
const QUIET: f64 = 1e-6;
