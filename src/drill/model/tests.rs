use std::{task::Waker, time::Duration};

use super::*;
use crate::drill::{
    random::Random,
    times::{Exponential, in_nanos, ms},
    trouble::{Incident, Trouble},
};

/// Returns the mean wait in service times, and the throughput per second, under Poisson arrivals.
fn run(workers: u32, mean: Duration, load: f64, calls: u32) -> (f64, f64) {
    let servers = Servers::new(workers).service(Exponential::mean(mean));
    let rate = load * servers.per_second();
    let mut model = Model::new(vec![servers], Timeline::default(), 1);
    let mut arrivals = Random::new(1, Purpose::Traffic(0));
    let mut at = 0.0;
    for _ in 0..calls {
        at += arrivals.exponential() / rate;
        let now = in_nanos(at);
        while let Some((at, event)) = model.agenda.pop(now) {
            settle(&mut model, at, event);
        }
        let Arrival::Waits(id) = model.arrive(0, now) else {
            panic!("an unbounded queue rejects nothing");
        };
        model.leave(id, now);
    }
    let seen = model.seen().next().unwrap();
    let waited = seen.waited / seen.started as f64;
    (waited / mean.as_secs_f64(), seen.started as f64 / at)
}

fn settle(model: &mut Model, at: u64, event: AgendaEvent) {
    match event {
        AgendaEvent::Depart(id) => drop(model.depart(id, at)),
        AgendaEvent::Change(number) => drop(model.change(number, at)),
        _ => panic!("{event:?}"),
    }
}

/// Returns the mean wait of M/M/c by Erlang's formula, in service times.
fn erlang_c(workers: u32, load: f64) -> f64 {
    let offered = load * f64::from(workers);
    let mut term = 1.0;
    let mut sum = 0.0;
    for count in 1..=workers {
        sum += term;
        term *= offered / f64::from(count);
    }
    let last = term / (1.0 - load);
    last / (sum + last) / (f64::from(workers) * (1.0 - load))
}

#[test]
fn mean_waits_are_those_of_erlang_c() {
    for mean in [ms(1), ms(20)] {
        let (waited, throughput) = run(8, mean, 0.9, 1_000_000);
        let expected = erlang_c(8, 0.9);
        let rate = 0.9 * 8.0 / mean.as_secs_f64();
        assert!(
            (waited / expected - 1.0).abs() < 0.03,
            "{waited}, {expected}"
        );
        assert!(
            (throughput / rate - 1.0).abs() < 0.03,
            "{throughput}, {rate}"
        );
    }
}

fn troubled(trouble: Trouble, servers: Servers) -> Model {
    let mut timeline = Timeline::default();
    timeline.add(
        0,
        &Incident {
            from: Duration::ZERO,
            to: Duration::from_secs(10),
            upstream: "shop".into(),
            trouble,
        },
    );
    let mut model = Model::new(vec![servers], timeline, 1);
    settle(&mut model, 0, AgendaEvent::Change(0));
    model
}

/// Sends calls, one each millisecond, and returns their answers up to the end.
fn answers(model: &mut Model, calls: u64) -> Vec<UpstreamAnswer> {
    let waker = Waker::noop();
    let mut waiting = Vec::new();
    let mut answers = Vec::new();
    for number in 0..calls {
        match model.arrive(0, number * 1_000_000) {
            Arrival::Answered(answer) => answers.push(answer),
            Arrival::Waits(id) => waiting.push(id),
        }
    }
    while let Some((at, event)) = model.agenda.pop(9_000_000_000) {
        settle(model, at, event);
    }
    answers.extend(waiting.into_iter().filter_map(|id| model.poll(id, waker)));
    answers
}

#[test]
fn a_share_of_calls_fails_as_the_trouble_says() {
    let mut model = troubled(Trouble::fails(0.3).status(500), Servers::new(100));
    let answers = answers(&mut model, 1000);
    let failed = answers
        .iter()
        .filter(|answer| **answer == UpstreamAnswer::Failed(500));
    assert!((250..350).contains(&failed.count()));
    assert_eq!(answers.len(), 1000);
}

#[test]
fn calls_that_hang_keep_no_worker() {
    let mut model = troubled(Trouble::hang(), Servers::new(1));
    assert!(answers(&mut model, 100).is_empty());
    assert_eq!(model.upstreams[0].busy, 0);
}

#[test]
fn more_than_the_queue_holds_is_answered_at_once() {
    let servers = Servers::new(1).queue(3).service(ms(1000));
    let mut model = Model::new(vec![servers], Timeline::default(), 1);
    let answers = answers(&mut model, 10);
    let overloaded = answers
        .iter()
        .filter(|answer| **answer == UpstreamAnswer::Overloaded);
    assert_eq!(overloaded.count(), 6);
    assert_eq!(answers.len(), 10);
}

#[test]
fn half_the_capacity_does_half_the_work() {
    let mut model = troubled(Trouble::capacity(0.5), Servers::new(4).service(ms(100)));
    let done = (0..200).map(|number| model.arrive(0, number)).count();
    assert_eq!(done, 200);
    while let Some((at, event)) = model.agenda.pop(1_000_001_000) {
        settle(&mut model, at, event);
    }
    assert_eq!(model.upstreams[0].seen.started, 22); // 20 are done, and 2 run
}

#[test]
fn a_standstill_starts_nothing_until_it_ends() {
    let mut model = troubled(Trouble::capacity(0.0), Servers::new(4));
    model.arrive(0, 1);
    assert_eq!(model.upstreams[0].busy, 0);
    while let Some((at, event)) = model.agenda.pop(10_000_000_000) {
        settle(&mut model, at, event);
    }
    assert_eq!(model.upstreams[0].busy, 1);
}

#[test]
fn work_goes_on_for_callers_that_left() {
    for (servers, busy) in [(Servers::new(1), 1), (Servers::new(1).gives_up(), 0)] {
        let mut model = Model::new(vec![servers], Timeline::default(), 1);
        let ids: Vec<_> = (0..3).map(|_| model.arrive(0, 0)).collect();
        for arrival in ids {
            let Arrival::Waits(id) = arrival else {
                panic!("there is room");
            };
            model.leave(id, 1);
        }
        assert_eq!(model.upstreams[0].busy, busy);
        assert_eq!(model.upstreams[0].waits, 2 * busy);
    }
}

#[test]
fn a_restart_loses_a_share_of_the_calls_in_flight() {
    let servers = Servers::new(1000).service(Duration::from_secs(8));
    let mut timeline = Timeline::default();
    timeline.add(
        0,
        &Incident {
            from: Duration::from_secs(2),
            to: Duration::from_secs(6),
            upstream: "shop".into(),
            trouble: Trouble::rolling_restart(1),
        },
    );
    let mut model = Model::new(vec![servers], timeline, 1);
    let answers = answers(&mut model, 1000);
    assert_eq!(answers, [UpstreamAnswer::Reset; 1000]);
    assert_eq!(model.upstreams[0].busy, 0);
}

#[test]
fn the_last_is_first_where_that_is_set() {
    let servers = Servers::new(1).service(ms(10)).last_first();
    let mut model = Model::new(vec![servers], Timeline::default(), 1);
    let ids: Vec<_> = (0..3).map(|number| model.arrive(0, number)).collect();
    let (at, event) = model.agenda.pop(u64::MAX - 1).unwrap();
    settle(&mut model, at, event);
    let Arrival::Waits(last) = ids[2] else {
        panic!("there is room");
    };
    assert_eq!(model.jobs.find(last).unwrap().stage, JobStage::Runs);
}
