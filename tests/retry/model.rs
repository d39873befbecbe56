//! Retry against a plain model: random results, hints, deadlines and cancellations, one call after
//! the other, on a paused clock.
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at tokio's clock, which is paused"
)]

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
    algorithm::{Backoff, Jitter, RetryBudget},
    protocol::http::{Client, ReplayBody},
    retry::RetryLayer,
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
    /// Attempts beyond them get the last.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    attempts: u32,
    capacity: u32,
    /// Thousandths of a token.
    ratio: u32,
    /// In milliseconds; the longest delay is ten times that.
    base: u64,
    /// In seconds.
    max_retry_after: u64,
}

/// What was seen of one call.
struct Seen {
    start: Instant,
    attempts: Vec<Instant>,
    /// `None` if it was cancelled.
    end: Option<(Instant, u16)>,
}

/// Whether another attempt must follow, and between which delays.
#[derive(Debug, PartialEq)]
enum Next {
    Never,
    /// The delay is drawn so that it may or may not end before the deadline.
    Maybe(Duration, Duration),
    Surely(Duration, Duration),
}

struct Model {
    settings: Settings,
    millis: u32,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            millis: settings.capacity * 1000,
        }
    }

    /// Follows a call, and tells what is wrong with it.
    fn follow(&mut self, call: &Call, seen: &Seen) -> Result<(), TestCaseError> {
        for (number, sent) in seen.attempts.iter().enumerate() {
            let step = call.step(number);
            let answered = *sent + Duration::from_millis(step.takes);
            let next = seen.attempts.get(number + 1);
            let is_end = seen.end.is_some() && next.is_none();
            if next.is_none() && seen.end.is_none() {
                return Ok(());
            }
            let retries = u32::try_from(number).unwrap();
            let expected = self.next(call, retries, step, answered - seen.start);
            match (&expected, next) {
                (Next::Never, Some(_)) => prop_assert!(false, "attempt {} too many", number + 1),
                (Next::Surely(..), None) => prop_assert!(false, "no attempt {}", number + 1),
                (Next::Surely(least, most) | Next::Maybe(least, most), Some(next)) => {
                    let delay = *next - answered;
                    let timer = Duration::from_millis(2);
                    prop_assert!(delay >= *least && delay <= *most + timer, "{delay:?}");
                    self.millis -= 1000;
                }
                (_, None) => {}
            }
            if is_end {
                let (at, status) = seen.end.unwrap();
                prop_assert_eq!(status, step.status);
                // At once: nobody waits for what will not come.
                prop_assert!(at - answered <= Duration::from_millis(2));
                self.ends(step);
            }
        }
        Ok(())
    }

    fn next(&self, call: &Call, retries: u32, step: Step, elapsed: Duration) -> Next {
        let retryable = match (step.status, step.retry_after) {
            (503, _) | (429, Some(_)) => call.idempotent,
            _ => false,
        };
        let longest = self.settings.max_retry_after;
        let too_long = step.retry_after.is_some_and(|hint| hint > longest);
        let exhausted = retries + 1 >= self.settings.attempts;
        if !retryable || exhausted || too_long || self.millis < 1000 {
            return Next::Never;
        }
        let base = Duration::from_millis(self.settings.base);
        let exponential = (base * 2u32.pow(retries)).min(base * 5);
        let hint = Duration::from_secs(step.retry_after.unwrap_or(0));
        let (mut least, mut most) = (exponential, exponential * 2);
        if step.retry_after.is_some() {
            least = least.max(hint);
            most = most.max(hint + exponential.max(hint / 10));
        }
        let deadline = call.deadline.map(Duration::from_millis);
        match deadline {
            Some(deadline) if elapsed + least >= deadline => Next::Never,
            Some(deadline) if elapsed + most + Duration::from_millis(1) >= deadline => {
                Next::Maybe(least, most)
            }
            _ => Next::Surely(least, most),
        }
    }

    /// Answers of a healthy upstream pay, a 404 as well.
    fn ends(&mut self, step: Step) {
        if matches!(step.status, 200 | 404) {
            let full = self.settings.capacity * 1000;
            self.millis = (self.millis + self.settings.ratio).min(full);
        }
    }
}

impl Call {
    fn step(&self, number: usize) -> Step {
        self.steps[number.min(self.steps.len() - 1)]
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let method = if self.idempotent {
            Method::GET
        } else {
            Method::POST
        };
        let mut request = Request::builder()
            .method(method)
            .body(Empty::new())
            .unwrap();
        if let Some(millis) = self.deadline {
            let deadline = Deadline::after(Duration::from_millis(millis));
            request.extensions_mut().insert(deadline);
        }
        request
    }
}

fn layer(settings: Settings) -> RetryLayer<Client> {
    let base = Duration::from_millis(settings.base);
    let ratio = f64::from(settings.ratio) / 1000.0;
    RetryLayer::builder()
        .protocol(Client::new())
        .attempts(settings.attempts)
        .backoff(Backoff::new(base, base * 10, Jitter::Exponential).unwrap())
        .budget(RetryBudget::new(settings.capacity, ratio).unwrap())
        .max_retry_after(Duration::from_secs(settings.max_retry_after))
        .build()
        .unwrap()
}

async fn send(layer: &RetryLayer<Client>, call: &Call) -> Seen {
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let (recording, steps) = (attempts.clone(), call.clone());
    let upstream = service_fn(move |_: Request<ReplayBody<Empty<Bytes>>>| {
        let step = {
            let mut attempts = recording.lock().unwrap();
            attempts.push(Instant::now());
            steps.step(attempts.len() - 1)
        };
        async move {
            sleep(Duration::from_millis(step.takes)).await;
            let mut response = Response::builder().status(step.status);
            if let Some(seconds) = step.retry_after {
                response = response.header(RETRY_AFTER, seconds);
            }
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        }
    });
    let start = Instant::now();
    let answer = layer.layer(upstream).oneshot(call.request());
    let patience = call.cancelled.map_or(Duration::MAX, Duration::from_millis);
    let end = timeout(patience, answer).await.ok();
    let end = end.map(|result| (Instant::now(), result.unwrap().status().as_u16()));
    let attempts = attempts.lock().unwrap().clone();
    Seen {
        start,
        attempts,
        end,
    }
}

fn follows_the_model(settings: Settings, calls: &[Call]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let layer = layer(settings);
        let mut model = Model::new(settings);
        for call in calls {
            let seen = send(&layer, call).await;
            model.follow(call, &seen)?;
            let budget = layer.handle().snapshot().budget;
            prop_assert_eq!(budget, Some(model.millis / 1000), "after {:?}", call);
        }
        Ok(())
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![
        2 => Just((200, None)),
        4 => Just((503, None)),
        2 => (0u64..5).prop_map(|hint| (503, Some(hint))),
        1 => (0u64..5).prop_map(|hint| (429, Some(hint))),
        1 => Just((429, None)),
        1 => Just((404, None)),
        1 => Just((500, None)),
    ];
    let step = (0u64..50, status).prop_map(|(takes, (status, retry_after))| Step {
        takes,
        status,
        retry_after,
    });
    prop::collection::vec(step, 1..5)
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let idempotent = prop::bool::weighted(0.85);
    let deadline = prop::option::weighted(0.3, 100u64..3000);
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
        attempts in 1u32..6, capacity in 1u32..6, ratio in 1u32..1000, base in 10u64..300,
        max_retry_after in 0u64..5,
    ) -> Settings {
        Settings { attempts, capacity, ratio, base, max_retry_after }
    }
}

proptest! {
    #[test]
    fn retries_follow_a_plain_model(settings in settings(), calls in calls()) {
        follows_the_model(settings, &calls)?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_moment_takes_no_token_along() {
    let settings = Settings {
        attempts: 4,
        capacity: 10,
        ratio: 100,
        base: 20,
        max_retry_after: 0,
    };
    for cancelled in 0..400 {
        let (takes, status, retry_after) = (10, 503, None);
        let call = Call {
            idempotent: true,
            deadline: None,
            cancelled: Some(cancelled),
            steps: vec![Step {
                takes,
                status,
                retry_after,
            }],
        };
        let layer = layer(settings);
        let seen = send(&layer, &call).await;
        let retries = u32::try_from(seen.attempts.len()).unwrap() - 1;
        let budget = layer.handle().snapshot().budget;
        assert_eq!(budget, Some(10 - retries), "dropped after {cancelled} ms");
    }
}
