//! An SDK's method behind layers of your own choice: a rate for each tenant, retries of errors that
//! the SDK calls transient, and a timeout.
//!
//! `cargo run --example sdk_call`

use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use tokio::task::spawn_blocking;
use tower_keep::{
    CallError, Outcome, RejectedKind, Run,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::{Backoff, Jitter, RetryLayer},
    run,
    timeout::TimeoutLayer,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mails = MailSdk::default();
    // What the service's quota rejects is an overload, and may be sent again as a failure may.
    let outcome = |result: Result<&u32, &SdkError>| match result {
        Err(SdkError::Throttled) => Outcome::Overload,
        Err(SdkError::Hung) => Outcome::Failure,
        Ok(_) | Err(SdkError::NoSuchAddress) => Outcome::Success,
    };
    let (base, max) = (Duration::from_millis(10), Duration::from_secs(1));
    // From the outside in: each attempt has its time, and all of them count as one mail.
    let layers = (
        RateLimitLayer::builder(Rate::per_minute(10))
            .burst(10)
            .keyed_by(run::key::<str>)
            .build()?,
        RetryLayer::builder()
            .protocol(Plain::classify(outcome).idempotent())
            .backoff(Backoff::new(base, max, Jitter::default())?)
            .build()?,
        TimeoutLayer::builder(Duration::from_millis(100))
            .protocol(Plain::classify(outcome))
            .build()?,
    );

    // What an attempt consumes is cloned within the closure, which may know its attempt's number.
    let mail = Mail::to("someone@example.com");
    let sent = layers.call().key("acme").cost(3).run(|attempt: u32| {
        let mail = mail.clone();
        mails.send(mail, attempt)
    });
    assert_eq!(sent.await?, 2, "the first attempt was throttled");

    // Each tenant has a quota, and a mail to many costs more than one.
    let to_many = || layers.call().key("acme").cost(5);
    let send = |attempt| mails.send(Mail::to("all@example.com"), attempt);
    to_many().run(send).await?;
    let error = to_many().run(send).await.unwrap_err();
    let rejected = error.rejected().expect("a rejection");
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    println!("later: {rejected}");
    layers.call().key("other").cost(5).run(send).await?;

    // An attempt that hangs is cut off, and the last one's end is the answer.
    let hung = layers
        .call()
        .key("other")
        .run(|_: u32| mails.send(Mail::to("hang"), 0))
        .await;
    assert!(matches!(hung, Err(CallError::Rejected(why)) if why.kind == RejectedKind::TimedOut));

    // What blocks goes to tokio's threads for that. A timeout leaves the thread running, so an SDK
    // that blocks needs a shorter one of its own.
    let checked = layers.call().key("other").run(|| async {
        let checked = spawn_blocking(check_address).await;
        checked.expect("it does not panic")
    });
    assert!(matches!(
        checked.await,
        Err(CallError::Inner(SdkError::NoSuchAddress))
    ));
    Ok(())
}

/// In place of a vendor's.
#[derive(Debug, Default)]
struct MailSdk {
    calls: AtomicU32,
}

#[derive(Debug, Clone)]
struct Mail {
    to: String,
}

#[derive(Debug)]
enum SdkError {
    Throttled,
    NoSuchAddress,
    Hung,
}

impl MailSdk {
    /// The number of the attempt that was sent.
    async fn send(&self, mail: Mail, attempt: u32) -> Result<u32, SdkError> {
        if mail.to == "hang" {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return Err(SdkError::Hung);
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(SdkError::Throttled);
        }
        Ok(attempt)
    }
}

fn check_address() -> Result<u32, SdkError> {
    thread::sleep(Duration::from_millis(1));
    Err(SdkError::NoSuchAddress)
}

impl Mail {
    fn to(address: &str) -> Self {
        Self { to: address.into() }
    }
}

impl fmt::Display for SdkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "over the quota",
            Self::NoSuchAddress => "no such address",
            Self::Hung => "hung",
        })
    }
}

impl Error for SdkError {}
