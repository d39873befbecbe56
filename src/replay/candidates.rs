//! The thresholds worth trying, derived from the log.

use crate::{
    algorithm::{BreakerConfig, Rate, statistics::whole},
    replay::{
        bursts::BurstPoint,
        findings::{MIN_CALLS, rate_of_a_key},
        survey::Survey,
        thresholds::Thresholds,
        words,
    },
};

pub(super) fn per_second(rate: &Rate) -> f64 {
    rate.count() as f64 / rate.per().as_secs_f64()
}

/// Thresholds with their names.
pub(super) type Candidates = Vec<(String, Thresholds)>;

pub(super) fn rate_candidates(
    bursts: &[BurstPoint],
    survey: &Survey,
    now: &Thresholds,
) -> Candidates {
    let mut found = Vec::new();
    for point in bursts {
        let Some(burst) = point.burst else { continue };
        let mut tried = vec![burst, burst / 2, burst / 10];
        if now.rate.is_some_and(|limit| limit.rate == point.rate) {
            tried.extend(now.rate.map(|limit| limit.burst));
        }
        tried.retain(|burst| *burst > 0);
        tried.sort_unstable();
        tried.dedup();
        for burst in tried {
            let name = format!("{} burst {burst}", words::rate(point.rate));
            found.push((name, Thresholds::rate(point.rate, burst)));
        }
    }
    // A limit for each key that all but the greediest keys stay below.
    if let (Some(limit), true) = (rate_of_a_key(survey), survey.keys.len() > 1) {
        let burst = crate::rate_limit::one_second_of(limit)
            .saturating_mul(2)
            .max(5);
        let name = format!("{} burst {burst} for each key", words::rate(limit));
        found.push((name, Thresholds::rate_per_key(limit, burst)));
    }
    found
}

pub(super) fn circuit_candidates(now: &Thresholds, is_client: bool) -> Candidates {
    if !is_client {
        return Vec::new();
    }
    let config = now
        .circuit
        .unwrap_or_else(crate::stack::circuit_breaker_config);
    let mut found = Vec::new();
    let own = config.failure_rate.unwrap_or(0.5);
    let mut rates = vec![own];
    rates.extend([0.3, 0.5, 0.7, 0.9].into_iter().filter(|rate| *rate != own));
    for (place, rate) in rates.into_iter().enumerate() {
        let mut calls = MIN_CALLS.to_vec();
        if place > 0 {
            calls.retain(|calls| [20, 50, 200].contains(calls));
        }
        calls.push(config.min_calls);
        calls.sort_unstable();
        calls.dedup();
        for min_calls in calls {
            let config = BreakerConfig {
                min_calls,
                failure_rate: Some(rate),
                ..config
            };
            let name = format!("min_calls {min_calls} at {}", words::percent(rate));
            found.push((name, Thresholds::circuit(config)));
        }
    }
    found
}

pub(super) fn timeout_candidates(survey: &Survey, now: &Thresholds) -> Candidates {
    let good = &survey.good;
    if good.count() == 0 {
        return Vec::new();
    }
    let (late, most) = (good.quantile(0.999), good.most());
    let nanos = [
        good.quantile(0.9),
        good.quantile(0.99),
        late,
        late.saturating_mul(2),
        most.saturating_add(most / 4),
    ];
    let mut times: Vec<_> = nanos.into_iter().map(words::rounded_up).collect();
    times.extend(now.timeout);
    times.sort_unstable();
    times.dedup();
    let named = times
        .into_iter()
        .map(|time| (words::duration(time), Thresholds::timeout(time)));
    named.collect()
}

pub(super) fn place_candidates(survey: &Survey, now: &Thresholds) -> Candidates {
    let size = |places: u64| usize::try_from(places).unwrap_or(usize::MAX);
    let most = survey.most_in_flight();
    let mut tried = vec![
        size(whole(survey.mean_in_flight.ceil())),
        size(whole(survey.peak_in_flight.ceil())),
        size(survey.in_flight_at(0.99)),
        size(survey.in_flight_at(0.9999)),
        size(most),
        size(most * 3 / 2),
        size(most * 2),
    ];
    tried.extend(now.places);
    tried.retain(|places| *places > 0);
    tried.sort_unstable();
    tried.dedup();
    let named = tried
        .into_iter()
        .map(|places| (places.to_string(), Thresholds::places(places)));
    named.collect()
}

pub(super) fn retry_candidates(now: &Thresholds) -> Candidates {
    let mut tried = vec![(3, 10, 0.1), (2, 10, 0.1), (3, 10, 0.2), (3, 100, 0.1)];
    if let Some(retry) = now.retry {
        tried.insert(0, (retry.attempts, retry.capacity, retry.ratio));
        let first = tried[0];
        let mut rest = tried.split_off(1);
        rest.retain(|one| *one != first);
        tried.extend(rest);
    }
    let named = tried.into_iter().map(|(attempts, capacity, ratio)| {
        let ratio_words = words::percent(ratio);
        let name = format!("{attempts} attempts, {capacity} tokens, {ratio_words} a success");
        (name, Thresholds::retry(attempts, capacity, ratio))
    });
    named.collect()
}

/// The number of rates on the curve.
pub(super) const STEPS: u32 = 8;
