//! The drill, used as its users do.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use http::{Request, Response};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    drill::{
        Body, Bursts, Drill, Exponential, HttpUpstream, Measure, PlainUpstream, Poisson, Reached,
        Servers, Steady, Trouble, ms, secs,
    },
    protocol::Plain,
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};

use crate::{bare, complaint, shop};

fn short() -> Drill {
    let stack = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(200)).build()?;
        Ok(stack.layer(upstream))
    };
    Drill::http(stack)
        .clients(10)
        .patience(ms(500))
        .lasting(secs(15))
        .traffic(Poisson::per_second(200), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .trouble(secs(5)..secs(8), "shop", Trouble::fails(0.5))
}

#[test]
fn the_sketch_of_the_guide_holds() {
    let report = Drill::http(|upstream| {
        let stack = stack::client().http().attempt_timeout(ms(200)).build()?;
        Ok(stack.layer(upstream))
    })
    .clients(50)
    .patience(ms(500))
    .lasting(secs(60))
    .traffic(Poisson::per_second(200), |n| {
        Request::get(format!("http://shop/{n}"))
    })
    .upstream("shop", shop())
    .trouble(secs(10)..secs(20), "shop", Trouble::fails(0.5))
    .trouble(secs(30)..secs(40), "shop", Trouble::capacity(0.5))
    .seeds(0..2)
    .run();
    report.each(Measure::Answered).at_least(0.8);
    report.each(Measure::AnsweredWhileWell).at_least(0.99);
    report.each(Measure::Recovery).at_most(secs(2));
    report.reached([Reached::CircuitOpened, Reached::BudgetDenied]);
}

#[test]
fn results_are_those_of_the_seeds_whatever_runs_them() {
    let all = short().seeds(3..9).run().json();
    for seed in 3..9 {
        let alone = short().seeds(seed..seed + 1).run().json();
        let start = alone.find(&format!("{{\"seed\":{seed},")).unwrap();
        let own = &alone[start..alone[start..].find('}').unwrap() + start];
        assert!(all.contains(own), "seed {seed}: {own}");
    }
}

#[test]
fn a_failing_assertion_tells_the_seed_and_the_line() {
    let report = short().seeds(0..4).run();
    let text = complaint(|| report.each(Measure::Answered).at_least(0.999));
    assert!(text.starts_with("drill: answered in time: "), "{text}");
    assert!(text.contains(", not at least 99.9 %"), "{text}");
    let line = "cargo test report::a_failing_assertion_tells_the_seed_and_the_line";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("TOWER_KEEP_SEED="), "{text}");
    assert!(text.contains("two runs of this seed are equal"), "{text}");
}

#[test]
fn a_failing_seed_is_told_as_the_smallest_story() {
    let report = short()
        .trouble(secs(10)..secs(11), "shop", Trouble::slow(1.01))
        .seeds(0..1)
        .run();
    let text = complaint(|| report.each(Measure::Answered).at_least(0.999));
    let story = text
        .lines()
        .find(|line| line.contains("smallest:"))
        .unwrap();
    assert!(
        !story.contains("slow"),
        "the harmless trouble stays: {story}"
    );
    assert!(
        !story.contains("from 5s to 8s"),
        "the other is not shorter: {story}"
    );
}

#[test]
fn what_users_draw_unseeded_is_detected() {
    let unseeded = |upstream: HttpUpstream| -> Result<_, BoxError> {
        Ok(service_fn(move |request| {
            let upstream = upstream.clone();
            async move {
                // Such as a balancer that takes its own random numbers.
                let random = HashMap::<(), ()>::new();
                let wait = random.hasher().hash_one(1) % 50;
                tokio::time::sleep(Duration::from_millis(wait)).await;
                upstream.oneshot(request).await
            }
        }))
    };
    let report = Drill::http(unseeded)
        .lasting(secs(2))
        .traffic(Steady::per_second(100), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .seeds(0..1)
        .run();
    let text = complaint(|| report.each(Measure::WaitMean).at_most(ms(1)));
    assert!(text.contains("two runs of this seed differ"), "{text}");
}

#[test]
fn what_was_not_reached_is_said_with_its_reason() {
    let report = Drill::http(|upstream| Ok(stack::client().http().build()?.layer(upstream)))
        .clients(50)
        .lasting(secs(20))
        .traffic(Poisson::per_second(2), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .trouble(secs(5)..secs(10), "shop", Trouble::fails(1.0))
        .seeds(0..2)
        .run();
    let why = "the circuit never opened: 8 calls in 10 s are never made at this traffic: a client \
               makes 0.4";
    assert!(
        report.not_reached().iter().any(|line| line == why),
        "{report}"
    );
    let text = complaint(|| report.reached([Reached::CircuitOpened]));
    assert!(text.contains("8 calls in 10 s"), "{text}");
    let text = complaint(|| report.reached([Reached::Hedged]));
    assert!(text.contains("no layer `hedge` was built"), "{text}");
}

#[test]
fn a_stack_that_does_harm_is_told_by_its_phase() {
    // One failure in twenty opens this circuit, for longer than the drill.
    let nervous = |upstream| {
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate(0.05)
            .protocol(tower_keep::protocol::http::Client::new())
            .build()?;
        Ok(breaker.layer(upstream))
    };
    let report = Drill::http(nervous)
        .lasting(secs(20))
        .traffic(Poisson::per_second(100), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .trouble(secs(5)..secs(10), "shop", Trouble::fails(0.3))
        .seeds(0..2)
        .run();
    let worse = report.worse_than_none();
    assert_eq!(worse.len(), 2, "{report}");
    assert!(
        worse[1].starts_with("10 to 20 s, all well: 0.0 % answered"),
        "{worse:?}"
    );
    assert!(report.to_string().contains("worse than no stack"));
}

#[test]
fn two_stacks_stand_side_by_side() {
    let report = short()
        .against(bare)
        .named("none of ours")
        .seeds(0..2)
        .run();
    let value = |column| report.each(Measure::Answered).of(column).mean().value();
    assert!((value("none of ours") - value("no stack")).abs() < f64::EPSILON);
    assert!(value("stack") > value("no stack"));
    let text = complaint(|| report.each(Measure::Answered).of("mine").at_least(0.0));
    assert!(text.contains("no column `mine`"), "{text}");
}

#[test]
fn the_margin_is_found_by_halving() {
    let drill = || {
        Drill::http(bare)
            .patience(secs(1))
            .lasting(secs(9))
            .traffic(Poisson::per_second(200), |n| {
                Request::get(format!("http://shop/{n}"))
            })
            .upstream("shop", shop())
            .seeds(0..4)
    };
    let fails = drill().breaking_point(Trouble::fails);
    let survived = fails.survived.unwrap();
    assert!((0.01..0.06).contains(&survived), "{fails}");
    assert!(fails.to_string().starts_with("survives "), "{fails}");
    let capacity = drill().breaking_point(Trouble::capacity);
    // Three seconds at half: what queues up is less than the callers' patience.
    let survived = capacity.survived.unwrap();
    assert!((0.4..0.55).contains(&survived), "{capacity}");
    assert!(capacity.broke < capacity.survived, "{capacity}");
}

#[test]
fn any_request_type_is_drilled() {
    let report = Drill::plain(|upstream: PlainUpstream| {
        let retry = RetryLayer::builder()
            .protocol(Plain::new().idempotent())
            .build()?;
        Ok(retry.layer(upstream.to("second").answering::<u64>()))
    })
    .lasting(secs(10))
    .traffic(Steady::per_second(50), |number| number)
    .upstream("first", Servers::new(1).service(secs(100)))
    .upstream("second", Servers::new(8))
    .trouble(secs(2)..secs(4), "second", Trouble::fails(0.1))
    .seeds(0..2)
    .run();
    report.each(Measure::Answered).at_least(0.99);
    report.reached([Reached::RetryRecovered]);
}

#[test]
fn a_server_is_drilled_with_all_clients_before_it() {
    let server = |handler| {
        let stack = stack::server()
            .http()
            .max_in_flight(20)
            .timeout(ms(500))
            .build()?;
        Ok(stack.layer(handler))
    };
    let report = Drill::http_server(server)
        .patience(ms(200))
        .lasting(secs(10))
        .traffic(Poisson::per_second(300), |n| Request::get(format!("/{n}")))
        .upstream("handler", Servers::new(8).service(ms(20)))
        .trouble(secs(3)..secs(6), "handler", Trouble::burst(4.0))
        .seeds(0..2)
        .run();
    report.reached([Reached::BulkheadFull]);
    report.each(Measure::Answered).at_least(0.5);
    report.each(Measure::Answered).of("no stack").at_most(0.5);
    report.each(Measure::Recovery).at_most(ms(500));
}

#[test]
fn an_axum_router_may_be_the_upstream() {
    let router = || {
        let slow = async || {
            tokio::time::sleep(ms(30)).await;
            "hello"
        };
        Router::new()
            .route("/slow", get(slow))
            .fallback(async || http::StatusCode::BAD_GATEWAY)
    };
    let report = Drill::http(bare)
        .lasting(secs(5))
        .traffic(Steady::per_second(50), |n| {
            let path = if n % 5 == 0 { "nothing" } else { "slow" };
            Request::get(format!("http://shop/{path}"))
        })
        .upstream("shop", Servers::new(100).service(Duration::ZERO))
        .handler("shop", router)
        .seeds(0..1)
        .run();
    let (answered, wait) = (
        report.each(Measure::Answered),
        report.each(Measure::WaitP50),
    );
    assert!((answered.value() - 0.8).abs() < 0.01, "{report}");
    assert!((wait.value() - 0.03).abs() < 0.002, "{report}");
}

#[test]
fn a_refused_connection_is_retried_even_for_post() {
    let report = Drill::http(|upstream| Ok(stack::client().http().build()?.layer(upstream)))
        .lasting(secs(10))
        .traffic(Steady::per_second(20), |n| {
            Request::post(format!("http://shop/{n}"))
        })
        .upstream("shop", Servers::new(8))
        .trouble(secs(4)..secs(6), "shop", Trouble::refuses(0.2))
        .seeds(0..2)
        .run();
    report.reached([Reached::RetryRecovered]);
    report.each(Measure::Answered).at_least(0.99);
}

#[test]
fn several_kinds_of_traffic_share_the_upstreams() {
    let report = Drill::http(bare)
        .lasting(secs(10))
        .traffic(Steady::per_second(10), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .traffic(Bursts::of(50).every(secs(2)), |n| {
            Request::get(format!("http://cart/{n}"))
        })
        .upstream("shop", Servers::new(8).service(ms(10)))
        .upstream("cart", Servers::new(1).service(ms(1)))
        .seeds(0..1)
        .run();
    let text = report.json();
    assert!(text.contains("\"asked\":349"), "{text}"); // 99 and 5 times 50
    report.each(Measure::Answered).at_least(1.0);
}

#[test]
fn time_that_is_up_ends_the_drill_and_is_told() {
    let report = short().seeds(0..10_000).within(ms(200)).run();
    let seeds = report.seeds().count();
    assert!((1..1000).contains(&seeds), "{seeds}");
    assert!(
        report
            .to_string()
            .contains("of 10000, then the time was up")
    );
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let error = |drill: Drill| drill.try_run().unwrap_err().to_string();
    let traffic =
        |drill: Drill| drill.traffic(Steady::per_second(1), |_| Request::get("http://a/"));
    let sound = || {
        traffic(Drill::http(bare))
            .upstream("a", Servers::new(1))
            .lasting(secs(1))
    };
    assert!(error(Drill::http(bare)).contains("`upstream`"));
    assert!(error(Drill::http(bare).upstream("a", Servers::new(1))).contains("`traffic`"));
    assert!(error(sound().clients(0)).contains("`clients`"));
    assert!(error(sound().patience(ms(0))).contains("`lasting`"));
    assert!(error(sound().seeds(1..1)).contains("`seeds`"));
    for trouble in [
        Trouble::fails(1.5),
        Trouble::fails(f64::NAN),
        Trouble::slow(0.0),
    ] {
        assert!(error(sound().trouble(ms(1)..ms(2), "a", trouble)).contains("`trouble`"));
    }
    assert!(error(sound().trouble(ms(1)..ms(2), "b", Trouble::hang())).contains("name `b`"));
    assert!(error(sound().trouble(ms(2)..ms(2), "a", Trouble::hang())).contains("`trouble`"));
    let broken = |_: HttpUpstream| -> Result<HttpUpstream, BoxError> { Err("no".into()) };
    let broken = traffic(Drill::http(broken)).upstream("a", Servers::new(1));
    assert!(error(broken).contains("the stack does not build: no"));
}

/// A stack whose parts are right by themselves.
#[test]
fn layers_without_a_name_are_read_too() {
    let stack = |upstream| {
        let bulkhead = BulkheadLayer::builder(2).build()?;
        let timeout = TimeoutLayer::builder(ms(30)).build()?;
        Ok(bulkhead.layer(timeout.layer(upstream)))
    };
    let report = Drill::plain(move |upstream: PlainUpstream| stack(upstream))
        .lasting(secs(5))
        .traffic(Poisson::per_second(100), |_| ())
        .upstream("shop", Servers::new(4).service(Exponential::mean(ms(30))))
        .seeds(0..1)
        .run();
    report.reached([Reached::BulkheadFull, Reached::AttemptTimeout]);
}

#[test]
fn a_seed_is_drawn_with_its_troubles_and_circuits() {
    let report = short()
        .trouble(secs(9)..secs(12), "shop", Trouble::refused())
        .seeds(0..1)
        .run();
    let svg = report.picture(0).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    for words in ["shop: 50 % fail", "shop: refused", "no stack:"] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    let open = svg.matches("fill=\"#cf222e\"").count();
    assert!(
        (2..12).contains(&open),
        "{open} of 30 half seconds have open circuits"
    );
}

#[test]
fn a_search_finds_where_a_stack_does_most_harm() {
    let drill = || {
        let nervous = |upstream| {
            let breaker = CircuitBreakerLayer::builder()
                .open_for(secs(3))
                .protocol(tower_keep::protocol::http::Client::new())
                .build()?;
            Ok(breaker.layer(upstream))
        };
        Drill::http(nervous)
            .lasting(secs(12))
            .traffic(Poisson::per_second(20), |n| {
                Request::get(format!("http://shop/{n}"))
            })
            .upstream("shop", shop())
            .trouble(secs(10)..secs(11), "shop", Trouble::fails(0.6))
            .seeds(0..2)
    };
    let worst = drill().worst();
    assert!(worst.without - worst.answered > 0.1, "{worst}");
    assert_eq!(worst, drill().worst());
    assert!(
        worst.to_string().contains("shop: 60 % fail from"),
        "{worst}"
    );
}

#[test]
fn a_call_to_an_unknown_host_is_an_error() {
    let drill = |host: &'static str| {
        short()
            .traffic(Steady::per_second(1), move |_| {
                Request::get(format!("http://{host}/"))
            })
            .upstream("stock", shop())
            .seeds(0..1)
    };
    let error = drill("stok").try_run().unwrap_err().to_string();
    let text = "drill: `upstream`: a call goes to `stok`, but the upstreams are `shop`, `stock`: \
                add it, or change the host";
    assert_eq!(error, text);
    assert!(drill("STOCK").try_run().is_ok());
}

#[test]
fn a_handler_of_an_unknown_upstream_is_an_error() {
    let answers = Arc::new(AtomicUsize::new(0));
    let drill = |name: &'static str| {
        let answers = answers.clone();
        let handler = service_fn(move |_: Request<Body>| {
            answers.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, BoxError>(Response::new(Body::default())) }
        });
        short()
            .traffic(Steady::per_second(1), |_| Request::get("http://10.0.0.1/"))
            .handler(name, move || handler.clone())
            .seeds(0..1)
    };
    let error = drill("sop").try_run().unwrap_err().to_string();
    assert!(
        error.ends_with("a handler is that of `sop`, but the upstreams are `shop`"),
        "{error}"
    );
    assert_eq!(answers.load(Ordering::Relaxed), 0);
    // A single upstream answers calls to any host, and so does its handler.
    assert!(drill("SHOP").try_run().is_ok());
    assert!(answers.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_plain_stack_over_an_unknown_upstream_is_an_error() {
    let drill = |name: &'static str| {
        Drill::plain(move |upstream: PlainUpstream| Ok(upstream.to(name)))
            .lasting(secs(1))
            .traffic(Steady::per_second(1), |_| ())
            .upstream("shop", shop())
            .seeds(0..1)
    };
    assert!(drill("stok").try_run().is_ok(), "a single one has any name");
    let error = drill("stok").upstream("stock", shop()).try_run();
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("a call goes to `stok`")
    );
}
