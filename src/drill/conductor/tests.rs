use std::time::Duration;

use super::*;
use crate::drill::{
    Exponential, Poisson, Servers,
    caller::Kind,
    model::{Arrival, Model},
    ms,
    plain::PlainKind,
    trouble::Timeline,
};

fn scenario(mean: Duration) -> Scenario {
    let mut scenario = Scenario::new(false);
    scenario.lasting = mean * 2000;
    scenario.upstreams = vec![(
        "shop".into(),
        Servers::new(8).service(Exponential::mean(mean)),
    )];
    scenario.patterns = vec![(0, Poisson::per_second(7.2 / mean.as_secs_f64()).into())];
    scenario
}

fn model(scenario: &Scenario, seed: u64) -> Model {
    let servers = scenario
        .upstreams
        .iter()
        .map(|(_, servers)| servers.clone());
    Model::new(servers.collect(), Timeline::default(), seed)
}

/// Runs over tokio's clock, and returns how long each call takes.
fn over_the_clock(scenario: &Scenario, seed: u64) -> Vec<u64> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let record = runtime.block_on(async {
        let world = World::new(model(scenario, seed), vec!["shop".into()], true);
        let upstream = PlainKind::<()>::upstream(world.clone(), &()).unwrap();
        let clients = vec![vec![PlainKind::<()>::bare(upstream)]];
        let asks: Vec<RequestFn<()>> = vec![Arc::new(|_| ())];
        let conductor = Conductor::new(world, (scenario, seed), &clients, &asks);
        tokio::task::unconstrained(conductor.run()).await
    });
    record.asked.iter().map(|call| call.took).collect()
}

/// Runs the model alone, and returns how long each call takes.
fn by_the_model(scenario: &Scenario, seed: u64) -> Vec<u64> {
    let mut model = model(scenario, seed);
    let mut arrivals = Arrivals::new(scenario.patterns[0].1.clone(), seed, 0);
    let (mut asked, mut took) = (Vec::new(), Vec::new());
    let mut settle = |model: &mut Model, asked: &[(u64, _)], until| {
        while let Some((at, event)) = model.agenda.pop(until) {
            let AgendaEvent::Depart(id) = event else {
                panic!("{event:?}");
            };
            drop(model.depart(id, at));
            let number = asked.iter().rposition(|(_, known)| *known == id);
            let number: usize = number.unwrap();
            took.push((number, at - asked[number].0));
            model.poll(id, Waker::noop());
        }
    };
    loop {
        let at = arrivals.next(&Timeline::default());
        if at >= nanos(scenario.lasting) {
            break;
        }
        settle(&mut model, &asked, at);
        let Arrival::Waits(id) = model.arrive(0, at) else {
            panic!("an unbounded queue rejects nothing");
        };
        asked.push((at, id));
    }
    settle(&mut model, &asked, u64::MAX - 1);
    took.sort_unstable();
    took.into_iter().map(|(_, took)| took).collect()
}

#[test]
fn the_clock_changes_no_nanosecond_of_the_model() {
    for mean in [ms(1), ms(20)] {
        let scenario = scenario(mean);
        let taken = over_the_clock(&scenario, 7);
        assert!(taken.len() > 14_000, "{}", taken.len());
        assert!(taken == by_the_model(&scenario, 7), "{mean:?}");
    }
}
