//! What becomes of single calls, on a paused clock.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    time::Duration,
};

use futures::FutureExt;
use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_keep::{
    fault::{Delay, Fault, FaultLayer},
    protocol::Plain,
};

use crate::{REASON, ask, echo, ms, now, secs, since};

#[tokio::test(start_paused = true)]
async fn a_delay_is_as_long_as_it_is_set() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(ms(250)))
        .build()
        .unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(60));
    let start = now();
    assert_eq!(ask(&service, 7).await.unwrap(), 7);
    assert_eq!(since(start), ms(250));
    assert_eq!(layer.handle().snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_to_the_first_answer() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(ms(100)).name("first"))
        .fault(Fault::delay(Delay::fixed(ms(50))).name("second"))
        .fault(Fault::response(|n: &u32| n * 10))
        .fault(Fault::delay(secs(5)).name("never"))
        .fault(Fault::error(|_: &u32| "never"))
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let start = now();
    assert_eq!(ask(&layer.layer(echo()), 7).await.unwrap(), 70);
    assert_eq!(since(start), ms(150));
    let injected = layer.handle().snapshot().injected;
    let counts = ["first", "second", "response", "never", "error"].map(|fault| injected[fault]);
    assert_eq!(counts, [1, 1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn faults_of_one_name_are_counted_together() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(ms(1)))
        .fault(Fault::delay(ms(1)))
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    ask(&layer.layer(echo()), 7).await.unwrap();
    assert_eq!(layer.handle().snapshot().injected["delay"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_line_is_followed() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(
            Fault::error(|_: &u32| "in a window")
                .name("window")
                .during(secs(10)..secs(20)),
        )
        .fault(
            Fault::error(|_: &u32| "in a burst")
                .name("burst")
                .bursts(secs(30), secs(1)),
        )
        .fault(
            Fault::error(|_: &u32| "at last")
                .name("last")
                .share(0.0)
                .then_share(secs(50), 1.0),
        )
        .build()
        .unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(61));
    let mut failed = Vec::new();
    for second in 0..70 {
        if let Err(error) = ask(&service, second).await {
            failed.push((second, error.to_string()));
        }
        advance(secs(1)).await;
    }
    let mut expected = vec![(0, "in a burst".to_owned())];
    expected.extend((10..20).map(|second| (second, "in a window".to_owned())));
    expected.push((30, "in a burst".to_owned()));
    expected.extend((50..60).map(|second| (second, "at last".to_owned())));
    expected.push((60, "in a burst".to_owned()));
    assert_eq!(failed, expected);
}

#[tokio::test(start_paused = true)]
async fn an_injected_panic_is_one() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::panic())
        .build()
        .unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(60));
    let mut call = pin!(ask(&service, 7));
    let panic = catch_unwind(AssertUnwindSafe(|| (&mut call).now_or_never())).unwrap_err();
    assert_eq!(
        panic.downcast_ref::<String>().unwrap(),
        "injected fault: a test"
    );
    assert_eq!(layer.handle().snapshot().injected["panic"], 1);
}

#[tokio::test(start_paused = true)]
async fn an_injected_error_is_of_its_own_type() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::error(|_: &u32| {
            io::Error::from(io::ErrorKind::ConnectionRefused)
        }))
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let error = ask(&layer.layer(echo()), 7).await.unwrap_err();
    let error = error.downcast_ref::<io::Error>().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// A call that is held up, or answered, does not keep what its service has reserved for it.
#[tokio::test(start_paused = true)]
async fn what_was_reserved_is_free_while_a_call_suffers() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::hang().when(|n: &u32| *n == 1))
        .fault(Fault::error(|_: &u32| "injected").when(|n: &u32| *n == 2))
        .build()
        .unwrap();
    let mut service = layer.layer(ConcurrencyLimit::new(echo(), 1));
    layer.handle().start_for(secs(60));
    let mut hung = pin!(service.ready().await.unwrap().call(1));
    assert!((&mut hung).now_or_never().is_none());
    // Of the one place that there is.
    let others = service.clone();
    let is_free = || others.clone().ready_oneshot().now_or_never().is_some();
    assert!(is_free());
    let failed = service.ready().now_or_never().unwrap().unwrap().call(2);
    assert!(is_free());
    failed.await.unwrap_err();
    layer.handle().stop();
    assert_eq!(hung.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_waits_for_readiness() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(ms(10)).when(|n: &u32| *n == 1))
        .build()
        .unwrap();
    let slow = service_fn(async |n: u32| {
        tokio::time::sleep(ms(100)).await;
        Ok::<_, io::Error>(n)
    });
    let mut service = layer.layer(ConcurrencyLimit::new(slow, 1));
    layer.handle().start_for(secs(60));
    let start = now();
    let delayed = service.ready().await.unwrap().call(1);
    let other = service.ready().await.unwrap().call(2);
    let (delayed, other) = futures::join!(delayed, other);
    assert_eq!((delayed.unwrap(), other.unwrap()), (1, 2));
    assert_eq!(since(start), ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_down_meanwhile_is_told() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(ms(10)))
        .build()
        .unwrap();
    let start = now();
    let breaks = tower::util::BoxCloneSyncService::new(Breaks(start + ms(5)));
    let service = layer.layer(breaks);
    layer.handle().start_for(secs(60));
    let error = ask(&service, 1).await.unwrap_err();
    assert_eq!(error.to_string(), "broken down");
    assert_eq!(since(start), ms(10));
}

/// Breaks down at a moment.
#[derive(Clone)]
struct Breaks(Instant);

impl Service<u32> for Breaks {
    type Response = u32;
    type Error = BoxError;
    type Future = std::future::Ready<Result<u32, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        let well = self.0.saturating_duration_since(now()) > Duration::ZERO;
        let ready = well.then_some(()).ok_or_else(|| "broken down".into());
        std::task::Poll::Ready(ready)
    }

    fn call(&mut self, n: u32) -> Self::Future {
        std::future::ready(Ok(n))
    }
}
