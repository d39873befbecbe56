//! A compile-time check of a service.

use tower::Service;

/// Compiles if `service` is a service for requests of type `Req`, and does nothing.
///
/// If a stack does not compile, a method such as `ready`, `oneshot` or `serve` often only says that
/// it does not exist. With this function the compiler names what is missing. The
/// [guide](crate::guide::keeping) explains its answers.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::Layer;
/// use tower_keep::{check, stack};
///
/// let stack = stack::client().http().build()?;
/// let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());
/// check::<Request<Empty<Bytes>>, _>(&client);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
///
/// Gates without a protocol are not a service:
///
/// ```compile_fail,E0277
/// use tower::{BoxError, Layer, service_fn};
/// use tower_keep::{bulkhead::BulkheadLayer, check, gate::GateLayer};
///
/// let layer = GateLayer::new(BulkheadLayer::builder(1).gate()?);
/// check::<u32, _>(&layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
pub fn check<Req, S: Service<Req>>(service: &S) {
    let _ = service;
}
