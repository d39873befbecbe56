//! A drill with the most frequent outages, for any stack.

use http::Request;

use super::{
    Drill, Lognormal, Poisson, Servers, Trouble,
    caller::Kind,
    http::Http,
    plain::PlainKind,
    times::{ms, secs},
};

impl Drill<Http> {
    /// Sets two minutes of traffic, an upstream, and seven troubles. They are a gray failure of 30
    /// %, half the capacity, refused connections, hanging, slow answers, a rolling restart of four
    /// instances, and a burst of ten times the calls.
    ///
    /// 50 clients make 200 calls a second of `GET http://upstream/{n}` and wait for 1 s. The
    /// upstream has 8 workers of some 22 ms, which is a load of 57 %. It also works for callers
    /// that have left. Change settings afterwards as you like, except traffic, which would be
    /// added.
    pub fn standard(self) -> Self {
        let request = |number| Request::get(format!("http://{NAME}/{number}"));
        self.traffic(Poisson::per_second(RATE), request).troubled()
    }
}

impl<Req: 'static> Drill<PlainKind<Req>> {
    /// Sets traffic, an upstream and troubles, as [`standard`](Drill::standard) does over HTTP,
    /// with your own requests.
    pub fn standard_with(self, request: impl Fn(u64) -> Req + Send + Sync + 'static) -> Self {
        self.traffic(Poisson::per_second(RATE), request).troubled()
    }
}

impl<K: Kind> Drill<K> {
    fn troubled(self) -> Self {
        let servers = Servers::new(8).service(Lognormal::median(ms(20)).sigma(0.5));
        let drill = self
            .clients(50)
            .patience(secs(1))
            .lasting(secs(120))
            .upstream(NAME, servers.queue(200));
        let troubles = [
            (5..13, Trouble::fails(0.3)),
            (21..28, Trouble::capacity(0.5)),
            (37..42, Trouble::refused()),
            (50..55, Trouble::hang()),
            (64..70, Trouble::slow(2.0)),
            (79..91, Trouble::rolling_restart(4)),
            (99..102, Trouble::burst(10.0)),
        ];
        troubles.into_iter().fold(drill, |drill, (when, trouble)| {
            drill.trouble(secs(when.start)..secs(when.end), NAME, trouble)
        })
    }
}

const NAME: &str = "upstream";
const RATE: f64 = 200.0;
