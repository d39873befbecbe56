//! The program `what_if`: its arguments and its actions.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    algorithm::statistics::whole,
    ambient::clock::Clock,
    replay::{
        assertion::Assertion,
        log::{Log, Progress},
        options::LogOptions,
        report::Report,
        rows::Question,
        stack::StackSettings,
    },
};

/// Runs the program `what_if` with these arguments, without the program's name. Returns 0, 1 if an
/// assertion does not hold, or 2 on an error.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    match Arguments::read(arguments) {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match arguments.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&error.to_string()),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("what_if: {error}");
    ExitCode::from(2)
}

#[derive(Debug)]
struct Arguments {
    logs: Vec<PathBuf>,
    options: LogOptions,
    server: bool,
    settings: Option<PathBuf>,
    against: Option<PathBuf>,
    html: Option<PathBuf>,
    json: Option<PathBuf>,
    write: Option<PathBuf>,
    assertions: Vec<Assertion>,
    show_keys: bool,
    quiet: bool,
}

impl Arguments {
    /// Parses the arguments. `None` if help was requested.
    fn read(arguments: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut read = Self {
            logs: Vec::new(),
            options: LogOptions::default(),
            server: false,
            settings: None,
            against: None,
            html: None,
            json: None,
            write: None,
            assertions: Vec::new(),
            show_keys: false,
            quiet: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, mut inline) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    (name.to_owned(), Some(value.to_owned()))
                }
                _ => (argument, None),
            };
            let mut value = || {
                let next = inline.take().or_else(|| arguments.next());
                next.ok_or_else(|| format!("{name} wants a value"))
            };
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--server" => read.server = true,
                "--show-keys" => read.show_keys = true,
                "--upstream-times" => read.options.upstream_times = true,
                "--quiet" | "-q" => read.quiet = true,
                "--format" => read.options.format = value()?.parse()?,
                "--zone" => read.options.set_zone(&value()?)?,
                "--key" => read.options.key = Some(value()?),
                "--host" => read.options.host = Some(value()?),
                "--temporary" => read.options.temporary = value()?.into(),
                "--settings" => read.settings = Some(value()?.into()),
                "--against" => read.against = Some(value()?.into()),
                "--html" => read.html = Some(value()?.into()),
                "--json" => read.json = Some(value()?.into()),
                "--write" => read.write = Some(value()?.into()),
                "--assert" => read.assertions.push(value()?.parse()?),
                other if other.starts_with("--") => {
                    return Err(format!("{other} is no option: see --help"));
                }
                log => read.logs.push(log.into()),
            }
        }
        if read.logs.is_empty() {
            return Err("give at least one log: see --help".into());
        }
        Ok(Some(read))
    }

    /// Runs the program. Returns whether all assertions hold.
    fn run(self) -> io::Result<bool> {
        let mut question = Question::new(self.stack(self.settings.as_ref())?);
        if let Some(against) = &self.against {
            question.against = Some(self.stack(Some(against))?);
        }
        question.show_keys = self.show_keys;
        let bar = !self.quiet && io::stderr().is_terminal();
        let clock = Clock::start();
        let log = Log::read(&self.logs, &self.options, &mut |progress| {
            if bar {
                draw(progress, clock.now());
            }
        })?;
        if bar {
            eprint!("\r\x1b[2Kreplaying {} calls\r", log.calls.count());
        }
        let report = Report::of(log, question)?;
        if bar {
            eprint!("\r\x1b[2K");
        }
        let mut out = io::stdout().lock();
        for (path, text) in [
            (&self.html, Report::to_html as fn(&Report) -> String),
            (&self.json, Report::to_json),
            (&self.write, |report| report.settings.clone()),
        ] {
            match path.as_ref().map(|path| (path, path.to_str())) {
                None => {}
                Some((_, Some("-"))) => writeln!(out, "{}", text(&report))?,
                Some((path, _)) => fs::write(path, text(&report))?,
            }
        }
        let is_data = [&self.html, &self.json, &self.write]
            .into_iter()
            .any(|path| path.as_ref().is_some_and(|path| path.to_str() == Some("-")));
        if !self.quiet && !is_data {
            write!(out, "{report}")?;
        }
        let mut holds = true;
        for assertion in &self.assertions {
            if let Err(error) = assertion.check(&report) {
                eprintln!("what_if: {error}");
                holds = false;
            }
        }
        Ok(holds)
    }

    fn stack(&self, path: Option<&PathBuf>) -> io::Result<StackSettings> {
        let Some(path) = path else {
            return Ok(if self.server {
                StackSettings::server()
            } else {
                StackSettings::client()
            });
        };
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(named)?;
        let read = if self.server {
            StackSettings::read_server(&text)
        } else {
            StackSettings::read_client(&text)
        };
        read.map_err(named)
    }
}

/// Draws a progress bar with the remaining time.
fn draw(progress: Progress, nanos: u64) {
    let Progress {
        bytes, of, calls, ..
    } = progress;
    let seconds = nanos as f64 / 1e9;
    if of == 0 {
        eprint!("\r\x1b[2K{calls} calls");
        return;
    }
    let share = (bytes as f64 / of as f64).min(1.0);
    let full = usize::try_from(whole(share * 30.0)).unwrap_or(0);
    let left = seconds / share.max(1e-3) * (1.0 - share);
    eprint!(
        "\r\x1b[2K[{}{}] {:.0} % {calls} calls, {left:.0} s left",
        "#".repeat(full),
        " ".repeat(30 - full.min(30)),
        share * 100.0
    );
}

const HELP: &str = "\
what_if: what other thresholds would have done with the calls that really came

usage: what_if [OPTIONS] LOG..        `-` is the standard input, .gz is unpacked

the log
  --format FORMAT     auto (the default), csv, 'nginx:LOG_FORMAT' or 'envoy:TEXT_FORMAT'
  --zone +HH:MM       of times that have none
  --key NAME          the variable or column that is a call's key, such as http_x_api_key
  --host NAME         the variable or column that is its upstream
  --upstream-times    durations are the upstream's alone
  --temporary FOLDER  for 32 bytes a call, if there are more than a million
the question
  --settings FILE     the settings in force, a client's TOML; without it the defaults
  --server            they are a server's
  --against FILE      others, to be compared, and asserted about
the answer
  --html FILE         one page with pictures
  --json FILE         all figures; `-` is the standard output
  --write FILE        the settings with the advice in them
  --assert BOUND      such as 'rejected_good < 0.01%'; also with <=, > and >=
  --show-keys         keys as the log has them, not their hashes
  --quiet             no text, no progress bar
the figures of --assert, of --against if it is given
  shares, with %      rejected_good, lost_good, good_lost, spared_bad, retries_denied, broken_lines
  times, with s or ms detection, open
  numbers             trips, false_trips (a week), missed_incidents
exit codes
  0                   all assertions hold
  1                   an assertion does not hold
  2                   an error: a log, a file or an option
";
