//! What is shown while the drill runs: redrawn in place on a terminal, else a line now and then.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use crate::{clients::Handles, script::Script, server::Server, state_name, traffic::Traffic};

#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    deadline: Duration,
    next: Duration,
    /// Lines to go up before drawing again.
    drawn: usize,
    phase: &'static str,
}

impl Progress {
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { terminal: stderr().is_terminal(), deadline, next: Duration::ZERO, drawn: 0, phase: "" }
    }

    /// Shows where things stand, if it is time to.
    pub(crate) fn tick(&mut self, now: Duration, script: &Script, sides: [(&Traffic, &Server); 2], handles: &Handles) {
        let phase = script.at(now).map_or("waiting for the last answers", |phase| phase.name);
        // A plain log also gets a line for each phase, once that has had a moment to show.
        if self.phase != phase && !self.terminal {
            self.next = self.next.min(now + Duration::from_millis(900));
        }
        self.phase = phase;
        if now < self.next {
            return;
        }
        self.next = now + if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(2) };
        let [plain, keep] = sides.map(|(traffic, server)| self.rates(now, traffic, server));
        let mut out = stderr().lock();
        // Nobody may be reading; the drill goes on all the same.
        let _ = if self.terminal {
            let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
            self.drawn = 5;
            let bar = bar(now, script);
            write!(
                out,
                "{up}\x1b[K{bar} {:>4.1} s  {phase}\n\x1b[K  plain     {plain}\n\x1b[K  keep      {keep}\n{}",
                now.as_secs_f64(),
                layers(handles, "\x1b[K"),
            )
        } else {
            let layers = layers(handles, "").replace('\n', "");
            writeln!(out, "{:>4.1} s  {phase:<9}  plain {plain}  keep {keep} {layers}", now.as_secs_f64())
        };
        let _ = out.flush();
    }

    pub(crate) fn finish(&self) {
        eprintln!();
    }

    /// Of the last second.
    fn rates(&self, now: Duration, traffic: &Traffic, server: &Server) -> String {
        let since = now.saturating_sub(Duration::from_secs(1));
        let (good, calls) = (traffic.good_since(since, self.deadline), server.calls_since(since));
        format!("{good:>4}/s answered in time {calls:>4}/s calls at the server")
    }
}

fn bar(now: Duration, script: &Script) -> String {
    let width = 40;
    let done = (now.as_secs_f64() / script.end().as_secs_f64() * f64::from(width)) as i32;
    (0..width).map(|cell| if cell < done { '█' } else { '░' }).collect()
}

/// The state of each layer, on two lines.
fn layers(handles: &Handles, clear: &str) -> String {
    let breaker = handles.breaker.snapshot();
    let (limit, bulkhead) = (handles.limit.snapshot(), handles.bulkhead.snapshot());
    format!(
        "{clear}  layers    circuit {:<9} ({:>3.0} % failed)  retry budget {:>2}\n{clear}            limit {:>3}/{} tokens  bulkhead {:>2}/{} in flight\n",
        state_name(breaker.state),
        100.0 * breaker.counts.failure_rate(),
        handles.retry.snapshot().budget.unwrap_or_default(),
        limit.available,
        limit.burst,
        bulkhead.in_flight,
        bulkhead.limit,
    )
}
