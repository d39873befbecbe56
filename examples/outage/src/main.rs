//! An outage: one script of it, and the same traffic through an unprotected and a protected client
//! side by side.
//!
//! `cargo run -p outage -- --help` lists what can be changed. Everything is real:
//! two axum servers on loopback ports that run the same script, hyper clients, refused sockets, and
//! real time.

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;
use tower_keep::{circuit_breaker::BreakerState, stack::ClientHandle};

#[path = "../../drills/arrivals.rs"]
mod arrivals;
mod clients;
#[path = "../../drills/clock.rs"]
mod clock;
#[path = "../../../src/drill/drawing.rs"]
mod drawing;
mod measure;
mod options;
mod page;
mod picture;
mod progress;
mod report;
mod script;
mod server;
mod traffic;

use clock::Clock;
use measure::{Band, Drill, Side};
use options::{Asked, Options};
use progress::Progress;
use script::Script;
use server::Server;
use traffic::Traffic;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help(help)) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    let (keep, handles) = match clients::keep(&options) {
        Ok(stack) => stack,
        Err(error) => return refuse(&error.to_string()),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime starts");
    let result = runtime.block_on(run(&options, keep, handles));
    runtime.shutdown_background();
    match result.and_then(|drill| conclude(&drill, &options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the drill went wrong: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("{error}\n`--help` lists the options.");
    ExitCode::from(2)
}

/// Starts both servers, sends both clients' traffic, and watches until all is answered.
async fn run(
    options: &Options,
    keep: clients::HttpClient,
    handles: ClientHandle,
) -> io::Result<Drill> {
    if let Some(address) = options.page {
        page::serve(address).await?;
    }
    let script = Script::new(options.seconds);
    let arrivals = arrivals::arrivals(options.load, script.end(), options.seed);
    let clock = Clock::start();
    let plain_server = Server::start(options, &script, clock)?;
    let keep_server = Server::start(options, &script, clock)?;
    let plain = Traffic::start(
        clients::plain(options),
        plain_server.address(),
        &arrivals,
        clock,
    );
    let keep = Traffic::start(keep, keep_server.address(), &arrivals, clock);

    let mut progress = Progress::new(options.deadline);
    let mut band = Band::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !(plain.is_over() && keep.is_over()) {
        ticks.tick().await;
        let now = clock.now();
        band.see(now, clients::of_the_server(&handles).0.state());
        progress.tick(
            now,
            &script,
            [(&plain, &plain_server), (&keep, &keep_server)],
            &handles,
        );
    }
    Ok(Drill {
        script,
        plain: Side::new("plain", Arc::clone(&plain.requests), plain_server.calls()),
        keep: Side::new("keep", Arc::clone(&keep.requests), keep_server.calls()),
        band,
        retries: handles.retry.snapshot().retries,
        over_budget: handles.retry.snapshot().budget_denied,
    })
}

fn conclude(drill: &Drill, options: &Options) -> io::Result<ExitCode> {
    println!("\n{}", report::table(drill, options));
    let path = options.svg.display();
    let folder = options.svg.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = folder.and_then(|()| std::fs::write(&options.svg, picture::draw(drill, options)));
    written
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {path}: {error}")))?;
    println!("timeline: {path}");
    if options.steered {
        println!("settings were changed, so nothing is asserted");
        return Ok(ExitCode::SUCCESS);
    }
    let differences = report::differences(drill, options);
    if differences.is_empty() {
        println!(
            "checked: the breaker opened; the keep client sent fewer calls, recovered within 2 s, and answered 70 % in time"
        );
        return Ok(ExitCode::SUCCESS);
    }
    differences
        .iter()
        .for_each(|difference| eprintln!("not as it should be: {difference}"));
    Ok(ExitCode::FAILURE)
}

/// A state in the words of the report.
fn state_name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
        _ => "set by hand",
    }
}
