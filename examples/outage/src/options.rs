//! What can be set, and how it is written.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
    pub(crate) svg: PathBuf,
    pub(crate) load: f64,
    pub(crate) deadline: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rate: u64,
    pub(crate) in_flight: usize,
    pub(crate) plain_attempts: u32,
    pub(crate) plain_delay: Duration,
    pub(crate) workers: usize,
    pub(crate) service_time: Duration,
    pub(crate) backlog: usize,
    pub(crate) protect_server: bool,
    /// Where the page is served, if it is to be.
    pub(crate) page: Option<SocketAddr>,
    /// Something that steers the outcome was set by hand.
    pub(crate) steered: bool,
}

pub(crate) enum Asked {
    Run(Box<Options>),
    Help(String),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 28.0,
            seed: 1,
            svg: default_svg(),
            load: 100.0,
            deadline: Duration::from_secs(1),
            timeout: Duration::from_millis(200),
            rate: 150,
            in_flight: 16,
            plain_attempts: 4,
            plain_delay: Duration::from_millis(50),
            workers: 4,
            service_time: Duration::from_millis(25),
            backlog: 2000,
            protect_server: false,
            page: None,
            steered: false,
        }
    }
}

/// One option: how it is called, told, set and shown.
struct Setting {
    name: &'static str,
    help: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
    /// The value, for the defaults in the help.
    show: fn(&Options) -> String,
}

/// Reads a command line.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut options = Options::default();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Asked::Help(help())),
            "--page" => {
                let address = inline.as_deref().unwrap_or(PAGE);
                let fix = |_| format!("`--page` is {address:?}: use an address such as {PAGE}");
                options.page = Some(address.parse().map_err(fix)?);
            }
            "--protect-server" if inline.is_none() => {
                options.protect_server = true;
                options.steered = true;
            }
            _ => {
                let setting = SETTINGS
                    .iter()
                    .find(|setting| name.strip_prefix("--") == Some(setting.name));
                let setting = setting.ok_or_else(|| format!("there is no option `{name}`"))?;
                let value = inline
                    .or_else(|| arguments.next())
                    .ok_or_else(|| format!("`{name}` needs a value"))?;
                (setting.set)(&mut options, &value)
                    .map_err(|fix| format!("`{name}` is {value:?}: {fix}"))?;
                options.steered |= !matches!(setting.name, "seed" | "svg");
            }
        }
    }
    Ok(Asked::Run(Box::new(options)))
}

fn help() -> String {
    let defaults = Options::default();
    let mut text = String::from(
        "One scripted outage, the same traffic, a plain and a protected client side by side.\n\n\
         cargo run -p outage -- [OPTION VALUE]...\n\n",
    );
    for setting in SETTINGS {
        let name = format!("--{}", setting.name);
        text += &format!(
            "  {name:<18}{} [{}]\n",
            setting.help,
            (setting.show)(&defaults)
        );
    }
    text + "  --protect-server  put a rate limit and a bulkhead on the servers as well\n  --page[=ADDRESS]  serve a live page of the protected client (feature `page`) [127.0.0.1:9400]\n  --help            shows this\n"
}

fn default_svg() -> PathBuf {
    // Beside `release/outage`, which is where cargo puts this program.
    let target = std::env::current_exe()
        .ok()
        .and_then(|path| path.ancestors().nth(2).map(PathBuf::from));
    target.unwrap_or_else(std::env::temp_dir).join("outage.svg")
}

fn any<T: FromStr>(place: &mut T, value: &str, fix: &str) -> Result<(), String> {
    *place = value.parse().map_err(|_| fix.to_owned())?;
    Ok(())
}

fn number<T: FromStr + PartialOrd>(
    place: &mut T,
    value: &str,
    least: T,
    most: T,
    fix: &str,
) -> Result<(), String> {
    any(place, value, fix)?;
    if *place >= least && *place <= most {
        Ok(())
    } else {
        Err(fix.to_owned())
    }
}

/// `250ms`, `1.5s`.
fn duration(place: &mut Duration, value: &str) -> Result<(), String> {
    let (digits, unit) = match value.strip_suffix("ms") {
        Some(digits) => (digits, 1e-3),
        None => (value.strip_suffix('s').unwrap_or_default(), 1.0),
    };
    let seconds = digits
        .parse::<f64>()
        .ok()
        .map(|number| number * unit)
        .filter(|seconds| *seconds <= 3600.0);
    *place = seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("use a time up to an hour, such as 250ms or 1.5s")?;
    Ok(())
}

fn working_time(place: &mut Duration, value: &str) -> Result<(), String> {
    duration(place, value)?;
    if (1..=1000).contains(&place.as_millis()) {
        Ok(())
    } else {
        Err("use 1ms to 1s".into())
    }
}

const PAGE: &str = "127.0.0.1:9400";
const COUNT: &str = "use a whole number, of no unusual size";
const SECONDS: &str = "use 14 to 55 seconds: shorter phases would show nothing";
const LOAD: &str = "use 1 to 2000 requests a second";
const WORKERS: &str = "use 1 to 1000 workers";
const BACKLOG: &str = "use a queue of 1 to 100000 calls";
const ATTEMPTS: &str = "use 1 to 20 attempts";

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    Setting { name: "seconds", help: "how long the script is stretched to, in seconds", set: |o, v| number(&mut o.seconds, v, 14.0, 55.0, SECONDS), show: |o| o.seconds.to_string() },
    Setting { name: "seed", help: "of arrivals, service times and failures", set: |o, v| any(&mut o.seed, v, COUNT), show: |o| o.seed.to_string() },
    Setting { name: "svg", help: "where the timeline is drawn", set: |o, v| any(&mut o.svg, v, "use a path"), show: |_| "outage.svg in cargo's target directory".into() },
    Setting { name: "load", help: "requests a second, to each client", set: |o, v| number(&mut o.load, v, 1.0, 2000.0, LOAD), show: |o| o.load.to_string() },
    Setting { name: "deadline", help: "after which an answer is useless; keep's total timeout", set: |o, v| duration(&mut o.deadline, v), show: |o| format!("{:?}", o.deadline) },
    Setting { name: "timeout", help: "of one attempt, for both clients", set: |o, v| duration(&mut o.timeout, v), show: |o| format!("{:?}", o.timeout) },
    Setting { name: "rate", help: "keep: calls a second at most", set: |o, v| any(&mut o.rate, v, COUNT), show: |o| o.rate.to_string() },
    Setting { name: "in-flight", help: "keep: calls in flight at most", set: |o, v| any(&mut o.in_flight, v, COUNT), show: |o| o.in_flight.to_string() },
    Setting { name: "plain-attempts", help: "plain: how often a call is sent at most", set: |o, v| number(&mut o.plain_attempts, v, 1, 20, ATTEMPTS), show: |o| o.plain_attempts.to_string() },
    Setting { name: "plain-delay", help: "plain: the wait between attempts", set: |o, v| duration(&mut o.plain_delay, v), show: |o| format!("{:?}", o.plain_delay) },
    Setting { name: "workers", help: "server: calls worked on at once", set: |o, v| number(&mut o.workers, v, 1, 1000, WORKERS), show: |o| o.workers.to_string() },
    Setting { name: "service-time", help: "server: a worker's time for a call, on average", set: |o, v| working_time(&mut o.service_time, v), show: |o| format!("{:?}", o.service_time) },
    Setting { name: "backlog", help: "server: calls that may wait for a worker", set: |o, v| number(&mut o.backlog, v, 1, 100_000, BACKLOG), show: |o| o.backlog.to_string() },
];
