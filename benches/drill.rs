//! How long a drill takes: a minute of 200 calls a second, with two troubles, for one stack and for
//! none. The promise is 100 ms each.
//!
//! `cargo bench --bench drill`

use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use tower::Layer;
use tower_keep::{
    drill::{Drill, Lognormal, Poisson, Servers, Trouble, ms, secs},
    stack,
};

fn a_minute(seed: u64) {
    let stack = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(200)).build()?;
        Ok(stack.layer(upstream))
    };
    let report = Drill::http(stack)
        .clients(50)
        .patience(ms(500))
        .lasting(secs(60))
        .traffic(Poisson::per_second(200), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream(
            "shop",
            Servers::new(8)
                .service(Lognormal::median(ms(20)).sigma(0.5))
                .queue(100),
        )
        .trouble(secs(10)..secs(20), "shop", Trouble::fails(0.5))
        .trouble(secs(30)..secs(40), "shop", Trouble::capacity(0.5))
        .seeds(seed..seed + 1)
        .run();
    assert_eq!(report.seeds().count(), 1);
}

fn drill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drill");
    group.sample_size(10);
    let mut seed = 0;
    group.bench_function("a minute of 200 calls/s, a stack and none", |bencher| {
        bencher.iter(|| {
            seed += 1;
            a_minute(seed);
        });
    });
    group.finish();
}

criterion_group!(benches, drill);
criterion_main!(benches);
