//! Faults before any service.

use tower::BoxError;

use crate::{
    fault::{
        Injected,
        broken::Broken,
        inject::{Answering, FaultProtocol, Inject},
        kind::{Answer, Kind},
    },
    protocol::Plain,
};

impl<C, I> FaultProtocol for Plain<C, I> {
    fn supports(kind: &Kind) -> Result<(), &'static str> {
        match kind {
            Kind::Answer(_) => {
                Err("use `Fault::error` or `Fault::response`, or a protocol of HTTP")
            }
            Kind::Body(_) => Err("use it with a protocol that has bodies: HTTP or gRPC"),
            _ => Ok(()),
        }
    }
}

impl<C, I, Req, Res, Err> Inject<Req, Res, Err> for Plain<C, I>
where
    Err: Into<BoxError>,
{
    type Response = Res;
    type Error = BoxError;

    #[inline]
    fn pass(result: Result<Res, Err>, _: Option<(Box<Broken>, Injected)>) -> Result<Res, BoxError> {
        result.map_err(Into::into)
    }

    fn not_ready(error: Err) -> BoxError {
        error.into()
    }

    fn answer(_: &Answer, _: Req) -> Answering<Res, BoxError> {
        Answering::Made(Err("a plain service has no such answer".into()))
    }

    fn mark(_: &mut Res, _: Injected) {}
}
