//! The service and its settings.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use tower::Service;

use super::{
    answer,
    body::PageBody,
    hosts::Hosts,
    hub::{Hub, Listener},
    others::Others,
    whose::PageRegistry,
};
use crate::ConfigError;

/// A live page of a [`Registry`](crate::observe::Registry), and the same as JSON: a Tower service
/// over `http`.
///
/// It mounts like other services: in axum's `nest_service`, tonic's router, hyper. Its paths are
/// `/`, `/snapshot.json` and `/events`. The [guide](crate::guide::page) shows it.
///
/// ```
/// use axum::Router;
/// use tower_keep::observe::{self, Registry};
///
/// let page = observe::page(Registry::global()).title("shop").allow_host("status.internal");
/// let app: Router = Router::new().nest_service("/keep", page);
/// ```
///
/// **It reads only.** Every method but `GET` and `HEAD` is answered 405, and reading changes
/// nothing. But its content is not public, and it has no login. Mount it on a port that only
/// operators can reach.
///
/// **Hosts.** A request must name an IP address, `localhost`, or an [allowed
/// host](Self::allow_host), or it is answered 403. Otherwise another site whose name resolves to
/// this address could read it in an operator's browser.
///
/// **Cost.** Nothing is computed while no browser shows it. All browsers share one snapshot a
/// second, and each receives the differences. A snapshot costs as much as
/// [`Registry::snapshot`](crate::observe::Registry::snapshot), and its text. No call is delayed.
///
/// **Clone** shares the listeners. **Drop** of a response's body ends its listener. A server that
/// shuts down gracefully waits for events that do not end: call [`end`](Self::end) first.
#[derive(Debug, Clone)]
pub struct Page {
    settings: Arc<Settings>,
    hub: Arc<Hub>,
}

#[derive(Debug, Clone)]
struct Settings {
    registry: PageRegistry,
    hosts: Hosts,
    title: Option<Arc<str>>,
    others: Others,
    prefix: String,
    max_listeners: usize,
}

/// Makes a page of a registry: `Registry::global()`, or an `Arc` of your own.
pub fn page(registry: impl Into<PageRegistry>) -> Page {
    Page::of(Settings {
        registry: registry.into(),
        hosts: Hosts::default(),
        title: None,
        others: Others::default(),
        prefix: String::new(),
        max_listeners: MAX_LISTENERS,
    })
}

impl Page {
    fn of(settings: Settings) -> Self {
        let hub = Hub::new(
            settings.registry.clone(),
            settings.title.clone(),
            settings.others.clone(),
        );
        Self {
            settings: Arc::new(settings),
            hub: Arc::new(hub),
        }
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings);
        Self::of(settings)
    }

    /// Sets the name of the process, as a heading. Default: none.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        let title = title.into();
        self.with(|settings| settings.title = Some(title.into()))
    }

    /// Allows one more host name for requests, with any port. Default: `localhost` and IP
    /// addresses.
    #[must_use]
    pub fn allow_host(self, host: impl AsRef<str>) -> Self {
        self.with(|settings| settings.hosts.allow(host.as_ref()))
    }

    /// Allows several more hosts, as [`allow_host`](Self::allow_host) does.
    #[must_use]
    pub fn allow_hosts(self, hosts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let hosts: Vec<_> = hosts.into_iter().collect();
        self.with(|settings| {
            hosts
                .iter()
                .for_each(|host| settings.hosts.allow(host.as_ref()));
        })
    }

    /// Sets the path prefix of the page, if the router leaves it in the request. Default: none,
    /// because `nest_service` removes it.
    #[must_use]
    pub fn at(self, prefix: impl AsRef<str>) -> Self {
        let prefix = prefix.as_ref().trim_matches('/');
        let prefix = if prefix.is_empty() {
            String::new()
        } else {
            format!("/{prefix}")
        };
        self.with(|settings| settings.prefix = prefix)
    }

    /// Sets how many listeners may follow the events at once. The next one is answered 503, and its
    /// page then polls every few seconds. All tabs of a browser count as one. Default 8.
    #[must_use]
    pub fn max_listeners(self, listeners: usize) -> Self {
        self.with(|settings| settings.max_listeners = listeners)
    }

    /// Shows other processes too, each by the address of its page. Their JSON is fetched once a
    /// second while a browser shows this page, so no second service is needed. Each must
    /// [allow](Self::allow_host) the host of its address. Default: none.
    ///
    /// # Errors
    /// An address that is not of the kind `http://10.0.0.2:9000/keep/`, or more than 32.
    pub fn others(
        self,
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ConfigError> {
        let others = Others::new(addresses)?;
        Ok(self.with(|settings| settings.others = others))
    }

    /// Ends all events of this page and its clones within a second, and starts no new ones. For a
    /// server that is about to shut down.
    pub fn end(&self) {
        self.hub.end();
    }

    /// Returns how many listeners follow the events now.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.hub.listeners()
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<PageBody> {
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            let words = "this page reads only: use GET";
            return answer::refusal(StatusCode::METHOD_NOT_ALLOWED, words);
        }
        if !self.settings.hosts.allow_request(request) {
            let words = "this host is not allowed: see `Page::allow_host`";
            return answer::refusal(StatusCode::FORBIDDEN, words);
        }
        let path = request.uri().path().strip_prefix(&*self.settings.prefix);
        match path {
            Some("" | "/") => answer::html(),
            Some("/snapshot.json" | "/events") if is_foreign(request) => {
                answer::refusal(StatusCode::FORBIDDEN, "another site may not read this")
            }
            Some("/snapshot.json") => self.snapshot(request.uri().query() == Some("alone")),
            Some("/events") => self.events(is_head),
            _ => answer::refusal(StatusCode::NOT_FOUND, "there is no such page"),
        }
    }

    fn snapshot(&self, alone: bool) -> Response<PageBody> {
        match self.hub.look(alone) {
            Some(model) => answer::json(&model),
            None => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "another one is being made"),
        }
    }

    fn events(&self, is_head: bool) -> Response<PageBody> {
        if is_head {
            return answer::events(PageBody::text(""));
        }
        let max = if self.hub.has_ended() {
            0
        } else {
            self.settings.max_listeners
        };
        match Listener::enter(&self.hub, max) {
            Some(listener) => answer::events(PageBody::events(listener)),
            None => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "enough follow already"),
        }
    }
}

/// Returns whether the browser reports that another site's script sent the request.
fn is_foreign<B>(request: &Request<B>) -> bool {
    let site = request.headers().get("sec-fetch-site");
    site.is_some_and(|site| site == "cross-site" || site == "same-site")
}

impl<B> Service<Request<B>> for Page {
    type Response = Response<PageBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<PageBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.answer(&request);
        ready(Ok(match *request.method() {
            Method::HEAD => answer::head(answer),
            _ => answer,
        }))
    }
}

/// The default for listeners: a team that watches one process, each with a browser.
const MAX_LISTENERS: usize = 8;
