//! What is shown while the drill runs: redrawn in place on a terminal, else a line now and then.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use tower_keep::{rate_limit::RateLimitHandle, stack::ClientHandle};

use crate::{
    clients::{budget_of_the_server, of_the_server},
    script::Script,
    server::Server,
    state_name,
    traffic::Traffic,
};

#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    deadline: Duration,
    next: Duration,
    /// Whether there is something to draw over.
    drawn: bool,
    phase: &'static str,
}

impl Progress {
    pub(crate) fn new(deadline: Duration) -> Self {
        Self {
            terminal: stderr().is_terminal(),
            deadline,
            next: Duration::ZERO,
            drawn: false,
            phase: "",
        }
    }

    /// Shows where things stand, if it is time to.
    pub(crate) fn tick(
        &mut self,
        now: Duration,
        script: &Script,
        sides: [(&Traffic, &Server); 2],
        handles: &ClientHandle,
    ) {
        let phase = script
            .at(now)
            .map_or("waiting for the last answers", |phase| phase.name);
        // A plain log also gets a line for each phase, once that has had a moment to show.
        if self.phase != phase && !self.terminal {
            self.next = self.next.min(now + Duration::from_millis(900));
        }
        self.phase = phase;
        if now < self.next {
            return;
        }
        self.next = now
            + if self.terminal {
                Duration::from_millis(100)
            } else {
                Duration::from_secs(2)
            };
        let [plain, keep] = sides.map(|(traffic, server)| self.rates(now, traffic, server));
        let [first, second] = layers(handles);
        let seconds = now.as_secs_f64();
        let text = if self.terminal {
            let lines = [
                format!("{}  {seconds:>4.1} s  {phase}", bar(now, script)),
                format!("  plain   {plain}"),
                format!("  keep    {keep}"),
                format!("  layers  {first}"),
                format!("          {second}"),
            ];
            let up = if self.drawn {
                format!("\x1b[{}A", lines.len())
            } else {
                String::new()
            };
            self.drawn = true;
            up + &lines.map(|line| format!("\x1b[K{line}\n")).concat()
        } else {
            format!("{seconds:>4.1} s  {phase:<9}  plain {plain}   keep {keep}   {first}\n")
        };
        // Nobody may be reading; the drill goes on all the same.
        let _ = stderr().lock().write_all(text.as_bytes());
    }

    /// Of the last second.
    fn rates(&self, now: Duration, traffic: &Traffic, server: &Server) -> String {
        let since = now.saturating_sub(Duration::from_secs(1));
        let (good, calls) = (
            traffic.good_since(since, self.deadline),
            server.calls_since(since),
        );
        format!("{good:>3}/s in time, {calls:>3}/s calls")
    }
}

fn bar(now: Duration, script: &Script) -> String {
    (0..BAR)
        .map(|cell| {
            if script.end() * cell < now * BAR {
                '█'
            } else {
                '░'
            }
        })
        .collect()
}

/// The state of each layer, in two halves.
fn layers(handles: &ClientHandle) -> [String; 2] {
    let (circuit, bulkhead) = of_the_server(handles);
    let (breaker, bulkhead) = (circuit.snapshot(), bulkhead.snapshot());
    let limit = handles.rate_limit.as_ref().map(RateLimitHandle::snapshot);
    let (tokens, burst) = limit.map_or((0, 0), |limit| (limit.available, limit.burst));
    let budget = budget_of_the_server(handles);
    let (circuit, failed) = (
        state_name(breaker.state),
        100.0 * breaker.counts.failure_rate(),
    );
    [
        format!("circuit {circuit:<9} {failed:>3.0} % failed, budget {budget:>2}"),
        format!(
            "limit {:>2}/{} tokens, bulkhead {:>2}/{} in flight",
            tokens, burst, bulkhead.in_flight, bulkhead.limit
        ),
    ]
}

const BAR: u32 = 40;
