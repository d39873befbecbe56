use std::{net::IpAddr, time::Duration};

use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::{
    Rejected, RejectedKind,
    algorithm::TokenBucket,
    keyed::{KeyFn, Subnet},
    rate_limit::{KeyedRateLimitLayer, Missing, Rate, RateLimitLayer},
};

mod calls;
mod eviction;
mod per_key;
mod total;

type Peer = (Option<&'static str>, IpAddr);

fn of(tenant: Option<&'static str>, address: &str) -> Peer {
    (tenant, address.parse().unwrap())
}

fn echo() -> impl Service<Peer, Response = Peer, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(async |peer: Peer| Ok::<_, BoxError>(peer))
}

type Tenant = fn(&Peer) -> Option<&'static str>;
type ByTenant = KeyedRateLimitLayer<KeyFn<Tenant, Peer>>;

fn by_tenant(missing: Missing) -> ByTenant {
    let tenant: Tenant = |peer| peer.0;
    let tenants = RateLimitLayer::builder(Rate::per_second(10))
        .burst(2)
        .name("tenants")
        .keyed_by(tenant);
    tenants.missing(missing).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_a_limit_shared_by_two_services() {
    let layer = by_tenant(Missing::Reject);
    let [first, second] = [(); 2].map(|()| layer.layer(echo()));
    assert!(first.clone().oneshot(of(Some("a"), "::1")).await.is_ok());
    assert!(second.clone().oneshot(of(Some("a"), "::1")).await.is_ok());
    let error = first
        .clone()
        .oneshot(of(Some("a"), "::1"))
        .await
        .unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(
        (rejected.name, rejected.retry_after),
        (Some("tenants"), Some(Duration::from_millis(100)))
    );
    assert!(first.clone().oneshot(of(Some("b"), "::1")).await.is_ok());
    assert_eq!(layer.handle().snapshot().active, 2);
    advance(Duration::from_millis(100)).await;
    assert!(first.oneshot(of(Some("a"), "::1")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_shares_or_fails_or_passes() {
    for (missing, expected) in [
        (Missing::Share, 2),
        (Missing::Reject, 0),
        (Missing::Allow, 10),
    ] {
        let service = by_tenant(missing).layer(echo());
        let mut admitted = 0;
        for _ in 0..10 {
            admitted += u32::from(service.clone().oneshot(of(None, "::1")).await.is_ok());
        }
        assert_eq!(admitted, expected, "{missing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_subnet_is_one_peer() {
    let layer = RateLimitLayer::builder(Rate::per_minute(1))
        .keyed_by(|peer: &Peer| Some(Subnet::of(peer.1)))
        .build()
        .unwrap();
    let service = layer.layer(echo());
    let admitted = |address| service.clone().oneshot(of(None, address));
    assert!(admitted("2001:db8::1").await.is_ok());
    assert!(admitted("2001:db8::2").await.is_err());
    assert!(admitted("2001:db8:0:1::1").await.is_ok());
    assert!(admitted("192.0.2.1").await.is_ok());
    assert!(admitted("::ffff:192.0.2.1").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_rate_is_one_step_for_all_keys() {
    let layer = by_tenant(Missing::Reject);
    let service = layer.layer(echo());
    layer.handle().set_rate(Rate::per_second(10), 1).unwrap();
    for tenant in ["a", "b"] {
        assert!(
            service
                .clone()
                .oneshot(of(Some(tenant), "::1"))
                .await
                .is_ok()
        );
        assert!(
            service
                .clone()
                .oneshot(of(Some(tenant), "::1"))
                .await
                .is_err()
        );
    }
    assert_eq!(
        layer
            .handle()
            .set_rate(Rate::per_second(10), 0)
            .unwrap_err()
            .field,
        "burst"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cost_is_charged_to_its_key_or_is_too_high() {
    // given: the cost of an order is its number of units.
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(10)
        .cost(|order: &(char, u32)| order.1);
    let layer = layer
        .keyed_by(|order: &(char, u32)| Some(order.0))
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |_: (char, u32)| Ok::<_, BoxError>(())));
    let ordered = |customer, units| service.clone().oneshot((customer, units));
    // when, then
    assert!(ordered('a', 8).await.is_ok());
    let kinds = [ordered('a', 3).await, ordered('a', 11).await].map(|result| {
        let rejected = Rejected::find(&*result.unwrap_err()).unwrap().clone();
        (rejected.kind, rejected.retry_after)
    });
    assert_eq!(
        kinds,
        [
            (RejectedKind::RateLimited, Some(Duration::from_secs(1))),
            (RejectedKind::CostTooHigh, None)
        ]
    );
    assert!(ordered('a', 2).await.is_ok());
    assert!(ordered('a', 0).await.is_ok());
    assert!(ordered('b', 10).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_handle_charges_refunds_and_closes_one_key() {
    let layer = by_tenant(Missing::Reject);
    let (service, handle) = (layer.layer(echo()), layer.handle());
    let admitted = async |tenant| {
        service
            .clone()
            .oneshot(of(Some(tenant), "::1"))
            .await
            .is_ok()
    };
    handle.charge("a", 3);
    assert!(!admitted("a").await);
    handle.refund("a", 2);
    assert!(admitted("a").await && !admitted("a").await);
    handle.close_for("b", Duration::from_secs(1));
    advance(Duration::from_millis(999)).await;
    assert!(admitted("a").await && admitted("c").await && !admitted("b").await);
    advance(Duration::from_millis(1)).await;
    assert!(admitted("b").await);
}

#[tokio::test(start_paused = true)]
async fn the_handle_tells_who_is_rejected_most() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_hour(1)).keyed_by(|tenant: &char| Some(*tenant));
    let layer = layer
        .heavy_hitters(|tenant: &char| format!("tenant {tenant}"))
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |_: char| Ok::<_, BoxError>(())));
    // when
    for (tenant, calls) in [('a', 3), ('b', 6), ('q', 1), ('c', 2)] {
        for _ in 0..calls {
            let _ = service.clone().oneshot(tenant).await;
        }
    }
    // then: the first call of each was admitted.
    let told = |most| -> Vec<_> {
        layer
            .handle()
            .heavy_hitters(most)
            .into_iter()
            .map(|key| (key.label, key.rejections, key.uncertain))
            .collect()
    };
    let label = |tenant: char| format!("tenant {tenant}");
    assert_eq!(told(2), [(label('b'), 5, 0), (label('a'), 2, 0)]);
    assert_eq!(told(10).len(), 3);
    advance(Duration::from_secs(120)).await;
    assert_eq!(told(10), [(label('b'), 1, 0)]);
}

#[test]
fn refuses_settings_that_cannot_work() {
    let builder = |burst| {
        RateLimitLayer::builder(Rate::per_second(1))
            .burst(burst)
            .keyed_by(|peer: &Peer| peer.0)
    };
    assert_eq!(
        builder(1).max_keys(0).build().unwrap_err().field,
        "max_keys"
    );
    assert_eq!(
        builder(1).max_keys(usize::MAX).build().unwrap_err().field,
        "max_keys"
    );
    assert_eq!(builder(0).build().unwrap_err().field, "burst");
    let bucket = TokenBucket::new(Rate::per_second(1), 1).unwrap();
    let error = RateLimitLayer::with(bucket)
        .name("peers")
        .keyed_by(|peer: &Peer| peer.0)
        .build()
        .unwrap_err();
    assert_eq!((error.field, error.name), ("limit", Some("peers")));
    assert!(error.to_string().contains("per_key"));
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn a_header_is_a_key_and_its_absence_is_none() {
    use http::Request;

    let layer =
        RateLimitLayer::builder(Rate::per_minute(1)).keyed_by(crate::keyed::header("X-Api-Key"));
    let layer = layer.missing(Missing::Reject).build().unwrap();
    let service = layer.layer(service_fn(async |_: Request<()>| Ok::<_, BoxError>(())));
    let sent = |name: &str, value: &str| {
        service
            .clone()
            .oneshot(Request::get("/").header(name, value).body(()).unwrap())
    };
    assert!(sent("x-api-key", "a").await.is_ok());
    assert!(sent("x-api-key", "a").await.is_err());
    assert!(sent("x-api-key", "b").await.is_ok());
    assert!(sent("x-other", "c").await.is_err());
}
