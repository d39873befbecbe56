//! The rules that find thresholds of circuits that do not fit their traffic.

use crate::{
    algorithm::{
        BreakerState, Cause, Counts,
        statistics::{binomial_tail, calls_for, count_interval, least_to_reach, whole},
    },
    observe::{
        Advice, Circuits,
        case::{Case, above_of},
    },
};

impl Case<'_> {
    pub(super) fn circuit(&self, circuits: &Circuits) -> Option<Advice> {
        let totals = self.one.totals;
        let answered = totals.success + totals.failure + totals.overload;
        let bad = totals.failure + totals.overload;
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
            .or_else(|| self.opens_by_slow(opened(Cause::SlowRate), (bad, answered), window))
            .or_else(|| self.hangs(opened(Cause::NoAnswer)))
            .or_else(|| self.comes_late(totals.late, answered + totals.rejected.local()))
    }

    fn never_opens(&self, window: Counts) -> Option<Advice> {
        let (rate, calls) = (self.config("failure_rate")?, self.config("min_calls")?);
        let held = window.total();
        if held < 10 || held as f64 >= calls || window.failure_rate() < rate {
            return None;
        }
        let better = (held / 2).max(10);
        let fails = self.seen((window.failures, held), rate);
        let trips = |base: f64| {
            let least = least_to_reach(better, rate);
            one_in(binomial_tail(better, least, base))
        };
        Some(Advice {
            better: Some(better.to_string()),
            reason: format!(
                "{fails} of the window's calls fail, and it stays closed: the window holds {held} calls"
            ),
            price: format!(
                "at a base rate of 5 % one window of {better} in {} trips by chance (at 1 % one in {}, at \
                 10 % one in {})",
                trips(0.05),
                trips(0.01),
                trips(0.1),
            ),
            evidence: fails.evidence,
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
        let shorter = |held: f64| (length * 100.0 / held).max(10.0).ceil();
        let better = shorter(held as f64);
        let (low, high) = count_interval(held);
        let rate = self.config("failure_rate").unwrap_or(0.5);
        let [earlier, least, most] =
            [better, shorter(low), shorter(high)].map(|window| (length - window) * rate);
        Some(Advice {
            better: Some(format!("{better}s")),
            reason: format!(
                "the window holds {held} calls of {length} s: an outage opens it only once it outweighs \
                 them"
            ),
            price: format!(
                "an outage is noticed some {earlier:.0} s earlier ({least:.0} to {most:.0}), and the \
                 window begins anew"
            ),
            alert: Some("CircuitWindowTooLong"),
            ..self.advice("window", format!("{length}s"))
        })
    }

    fn opens_by_chance(&self, opened: u64, (bad, answered): (u64, u64)) -> Option<Advice> {
        let (rate, calls) = (
            self.config("failure_rate")?,
            whole(self.config("min_calls")?),
        );
        let base = self.seen((bad, answered), rate);
        let trips = |calls: u64, base| binomial_tail(calls, least_to_reach(calls, rate), base);
        let by_chance = trips(calls, base.share);
        if opened == 0 || base.share >= rate * 0.9 || by_chance < 1e-4 {
            return None;
        }
        let better = calls_for(&MIN_CALLS, (rate, base.share), QUIET);
        let seconds = |calls: u64| calls as f64 * self.elapsed / answered.max(1) as f64;
        let [chance, most, least] =
            [base.share, base.high, base.low].map(|base| one_in(trips(calls, base)));
        let reason = format!(
            "it opened {opened} times, and at a base rate of {base} one window of {calls} calls in \
             {chance} ({most} to {least}) does by chance"
        );
        let advice = Advice {
            evidence: base.evidence,
            alert: Some("CircuitOpensByChance"),
            ..self.advice("min_calls", calls.to_string())
        };
        let Some(better) = better.filter(|better| u64::from(*better) > calls) else {
            return Some(Advice {
                setting: "failure_rate",
                now: format!("{rate:.2}"),
                better: Some(format!("{:.2}", (rate + 0.1).min(1.0))),
                reason: format!("{reason}: no number of calls helps so close to the threshold"),
                price: "an outage must be so much worse to open it".into(),
                ..advice
            });
        };
        let n = u64::from(better);
        let [chance, most, least] =
            [base.share, base.high, base.low].map(|base| one_in(trips(n, base)));
        Some(Advice {
            better: Some(better.to_string()),
            reason,
            price: format!(
                "of {better} calls one window in {chance} does ({most} to {least}), and an outage is \
                 noticed up to {:.1} s later",
                seconds(n) - seconds(calls),
            ),
            ..advice
        })
    }

    fn opens_by_slow(
        &self,
        opened: u64,
        (bad, answered): (u64, u64),
        window: Counts,
    ) -> Option<Advice> {
        let (rate, after) = (self.config("slow_rate")?, self.config("slow_after")?);
        let fails = self.seen((bad, answered), 0.1);
        if opened == 0 || fails.share > 0.1 {
            return None;
        }
        let seen = self.good().map(|good| above_of(good, after));
        let held = (window.total() >= 20).then(|| (window.slow, window.total()));
        let slow = seen.or(held).map(|slow| self.seen(slow, rate));
        let better = slow
            .map_or(rate + 0.25, |slow| slow.share + 0.1)
            .clamp(rate + 0.05, 1.0);
        Some(Advice {
            better: Some(format!("{better:.2}")),
            reason: format!(
                "it opened {opened} times because calls took {after} s or more, though only {fails} fail"
            ),
            price: match slow {
                Some(slow) => format!("{slow} of the good answers take that long"),
                None => "look at tower_keep_circuit_breaker_slow_ratio of a usual day first".into(),
            },
            evidence: fails.evidence,
            alert: Some("CircuitSlowNearThreshold"),
            ..self.advice("slow_rate", format!("{rate:.2}"))
        })
    }

    fn hangs(&self, opened: u64) -> Option<Advice> {
        (opened > 0).then(|| Advice {
            reason: format!(
                "it opened {opened} times because calls were dropped and none was answered: the upstream \
                 hangs, and no threshold helps"
            ),
            alert: Some("CircuitOpensUnanswered"),
            ..self.advice("open_on_no_answer", "true".into())
        })
    }

    /// Advises on late results. Each opening makes the calls in flight late, which is little beside
    /// what an open circuit rejects.
    fn comes_late(&self, late: u64, others: u64) -> Option<Advice> {
        let open_for = self.config("open_for")?;
        // Calls that a timeout has ended by then were in flight when the circuit opened.
        if self.longest().is_some_and(|longest| longest < open_for) {
            return None;
        }
        let share = self.seen((late, late + others), 0.05);
        (share.share > 0.05 && late > 10).then(|| Advice {
            reason: format!(
                "{late} results came after the state that admitted them, {share} of all: an attempt's \
                 timeout below {open_for} s ends that"
            ),
            evidence: share.evidence,
            alert: Some("ResultsComeLate"),
            ..self.advice("open_for", format!("{open_for}s"))
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
/// The probability of a trip by chance that is acceptable per window.
const QUIET: f64 = 1e-6;
