//! Hedges against a plain model: random results, delays, hints, deadlines and cancellations, one
//! call after the other, on a paused clock.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, header::RETRY_AFTER};
use http_body_util::Empty;
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use tower_keep::{
    Deadline,
    algorithm::{Budget, RetryBudget},
    hedge::HedgeLayer,
    protocol::http::{Client, ReplayBody},
};

/// What the upstream does with an attempt, after `takes` milliseconds.
#[derive(Debug, Clone, Copy)]
struct Step {
    takes: u64,
    status: u16,
    /// In seconds.
    retry_after: Option<u64>,
}

#[derive(Debug, Clone)]
struct Call {
    idempotent: bool,
    /// In milliseconds, both.
    deadline: Option<u64>,
    cancelled: Option<u64>,
    /// By the order in which attempts come; those beyond them get the last.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    /// In milliseconds.
    delay: u64,
    max_hedges: usize,
    capacity: u32,
    /// Thousandths of a token.
    ratio: u32,
    /// In seconds.
    max_retry_after: u64,
}

/// What is seen of one call, in milliseconds since its start.
#[derive(Debug, PartialEq, Default)]
struct Seen {
    sent: Vec<u64>,
    /// `None` if it was cancelled.
    end: Option<(u64, u16)>,
}

struct Model {
    settings: Settings,
    millis: u32,
}

/// One call of the model.
struct Going<'a> {
    call: &'a Call,
    now: u64,
    seen: Seen,
    /// The attempts under way, by number, with what they will answer and when.
    running: Vec<(usize, u64, Step)>,
    delay: u64,
    /// When the next is sent for its delay, while one is left.
    due: Option<u64>,
    /// When one that is paid for is sent: at once, unless an answer has asked for later.
    held: Option<u64>,
    left: usize,
    last: u16,
}

impl Model {
    fn follow(&mut self, call: &Call) -> Seen {
        let may_hedge = call.idempotent && self.millis >= 1000;
        let mut going = Going {
            call,
            now: 0,
            seen: Seen::default(),
            running: Vec::new(),
            delay: self.settings.delay,
            due: None,
            held: None,
            left: if may_hedge {
                self.settings.max_hedges
            } else {
                0
            },
            last: 0,
        };
        going.send();
        while let Some(next) = going.next_event() {
            if call.cancelled.is_some_and(|cancelled| cancelled < next) {
                self.millis += 1000 * u32::from(going.held.is_some());
                return going.seen;
            }
            going.now = next;
            while let Some(at) = going.running.iter().position(|(_, end, _)| *end <= next) {
                let (number, _, step) = going.running.remove(at);
                if let Some(status) = self.judge(&mut going, number, step) {
                    self.millis += 1000 * u32::from(going.held.is_some());
                    going.seen.end = Some((next, status));
                    return going.seen;
                }
            }
            if going.held.is_some_and(|held| held <= next) {
                going.held = None;
                going.send();
            }
            if going.running.is_empty() && going.held.is_none() {
                break;
            }
            if going.held.is_none() && going.due.is_some_and(|due| due <= next) {
                self.start(&mut going, next);
            }
        }
        going.seen.end = Some((going.now, going.last));
        going.seen
    }

    /// The answer, if the result of an attempt is that of the call.
    fn judge(&mut self, going: &mut Going<'_>, number: usize, step: Step) -> Option<u16> {
        let first_runs = going.running.iter().any(|(number, ..)| *number == 0);
        going.last = step.status;
        match (step.status, step.retry_after) {
            (200 | 404, _) => {
                let full = self.settings.capacity * 1000;
                self.millis = (self.millis + self.settings.ratio).min(full);
                return Some(step.status);
            }
            (503, None) if going.held.is_none() => self.start(going, going.now),
            (503, None) => {}
            (503 | 429, Some(seconds)) => {
                let asked = going.now + seconds * 1000;
                let until = going.held.map_or(asked, |held| held.max(asked));
                let too_late = going
                    .call
                    .deadline
                    .is_some_and(|deadline| until >= deadline);
                if too_late || seconds > self.settings.max_retry_after {
                    self.stop(going);
                } else if going.held.is_some() {
                    going.held = Some(until);
                } else {
                    self.start(going, until);
                }
            }
            _ if number > 0 && first_runs => self.stop(going),
            _ => return Some(step.status),
        }
        None
    }

    /// Another attempt, to be sent then, if there is one left, in time and paid for.
    fn start(&mut self, going: &mut Going<'_>, at: u64) {
        let in_time = going.call.deadline.is_none_or(|deadline| at < deadline);
        if going.left == 0 || !in_time || self.millis < 1000 {
            (going.left, going.due) = (0, None);
            return;
        }
        self.millis -= 1000;
        going.left -= 1;
        (going.due, going.held) = (None, Some(at));
    }

    fn stop(&mut self, going: &mut Going<'_>) {
        self.millis += 1000 * u32::from(going.held.take().is_some());
        (going.left, going.due) = (0, None);
    }
}

impl Going<'_> {
    fn send(&mut self) {
        let number = self.seen.sent.len();
        let step = self.call.steps[number.min(self.call.steps.len() - 1)];
        self.seen.sent.push(self.now);
        self.running.push((number, self.now + step.takes, step));
        self.running.sort_by_key(|(number, ..)| *number);
        self.due = (self.left > 0).then_some(self.now + self.delay);
    }

    fn next_event(&self) -> Option<u64> {
        let ends = self.running.iter().map(|(_, end, _)| *end);
        // While a hint is honored, nothing is sent for its delay.
        let sends = self.held.or(self.due);
        ends.chain(sends).min()
    }
}

impl Call {
    fn request(&self) -> Request<Empty<Bytes>> {
        let method = match self.idempotent {
            true => Method::GET,
            false => Method::POST,
        };
        let request = Request::builder().method(method).uri("http://upstream/");
        let mut request = request.body(Empty::new()).unwrap();
        if let Some(millis) = self.deadline {
            let deadline = Deadline::after(Duration::from_millis(millis));
            request.extensions_mut().insert(deadline);
        }
        request
    }
}

fn layer(settings: Settings) -> (HedgeLayer<Client>, Arc<Budget>) {
    let ratio = f64::from(settings.ratio) / 1000.0;
    let budget: Arc<Budget> = RetryBudget::new(settings.capacity, ratio).unwrap().into();
    let layer = HedgeLayer::builder()
        .protocol(Client::new())
        .delay(Duration::from_millis(settings.delay))
        .max_hedges(settings.max_hedges)
        .budget(budget.clone())
        .max_retry_after(Duration::from_secs(settings.max_retry_after))
        .build()
        .unwrap();
    (layer, budget)
}

async fn send(layer: &HedgeLayer<Client>, call: &Call) -> Seen {
    let (sent, steps) = (Arc::new(Mutex::new(Vec::new())), call.steps.clone());
    let (recording, start) = (sent.clone(), Instant::now());
    let elapsed = move || u64::try_from(start.elapsed().as_millis()).unwrap();
    let upstream = service_fn(move |_: Request<ReplayBody<Empty<Bytes>>>| {
        let mut sent = recording.lock().unwrap();
        let step = steps[sent.len().min(steps.len() - 1)];
        sent.push(elapsed());
        async move {
            sleep(Duration::from_millis(step.takes)).await;
            let mut response = Response::builder().status(step.status);
            if let Some(seconds) = step.retry_after {
                response = response.header(RETRY_AFTER, seconds);
            }
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        }
    });
    let answer = layer.layer(upstream).oneshot(call.request());
    let patience = call.cancelled.map_or(Duration::MAX, Duration::from_millis);
    let end = timeout(patience, answer).await.ok();
    let end = end.map(|result| (elapsed(), result.unwrap().status().as_u16()));
    let sent = sent.lock().unwrap().clone();
    Seen { sent, end }
}

fn follows_the_model(settings: Settings, calls: &[Call]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (layer, budget) = layer(settings);
        let millis = settings.capacity * 1000;
        let mut model = Model { settings, millis };
        for call in calls {
            let seen = send(&layer, call).await;
            prop_assert_eq!(seen, model.follow(call), "{:?}", call);
            let left = budget.available(0);
            prop_assert_eq!(left, model.millis / 1000, "after {:?}", call);
        }
        Ok(())
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![
        3 => Just((200, None)),
        4 => Just((503, None)),
        3 => (0u64..5).prop_map(|hint| (503, Some(hint))),
        1 => (0u64..5).prop_map(|hint| (429, Some(hint))),
        1 => Just((429, None)),
        1 => Just((404, None)),
        1 => Just((500, None)),
    ];
    let takes = prop_oneof![4 => 1u64..100, 1 => 100u64..4000];
    let step = (takes, status).prop_map(|(takes, (status, retry_after))| Step {
        takes,
        status,
        retry_after,
    });
    prop::collection::vec(step, 1..6)
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let idempotent = prop::bool::weighted(0.9);
    let deadline = prop::option::weighted(0.3, 50u64..3000);
    let cancelled = prop::option::weighted(0.3, 0u64..1500);
    let call = (idempotent, deadline, cancelled, steps()).prop_map(
        |(idempotent, deadline, cancelled, steps)| Call {
            idempotent,
            deadline,
            cancelled,
            steps,
        },
    );
    prop::collection::vec(call, 1..20)
}

prop_compose! {
    fn settings()(
        delay in 1u64..80, max_hedges in 1usize..4, capacity in 1u32..6, ratio in 1u32..1000,
        max_retry_after in 0u64..5,
    ) -> Settings {
        Settings { delay, max_hedges, capacity, ratio, max_retry_after }
    }
}

proptest! {
    #[test]
    fn hedges_follow_a_plain_model(settings in settings(), calls in calls()) {
        follows_the_model(settings, &calls)?;
    }
}
