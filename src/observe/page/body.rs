//! The body of an answer: a text, or events without end.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{hub::Listener, model::difference};

/// The body of a [`Page`](super::Page)'s answers.
pub struct PageBody(PageContent);

enum PageContent {
    Text(Bytes),
    Events(Box<Events>),
}

/// The events of one listener: first the whole model, then each second the changes since.
struct Events {
    listener: Listener,
    ticks: Interval,
    told: Option<Arc<Value>>,
}

impl PageBody {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self(PageContent::Text(text.into()))
    }

    pub(super) fn events(listener: Listener) -> Self {
        let mut ticks = interval(Duration::from_secs(1));
        // A slow connection receives one event for several seconds.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(PageContent::Events(Box::new(Events {
            listener,
            ticks,
            told: None,
        })))
    }
}

impl Events {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.listener.hub().has_ended() {
                return Poll::Ready(None);
            }
            ready!(self.ticks.poll_tick(cx));
            if self.listener.hub().has_ended() {
                return Poll::Ready(None);
            }
            let Some(model) = self.listener.hub().tick() else {
                continue;
            };
            let event = match &self.told {
                None => Some(format!("retry: 2000\nevent: full\ndata: {model}\n\n")),
                Some(told) => {
                    difference(told, &model).map(|patch| format!("event: diff\ndata: {patch}\n\n"))
                }
            };
            self.told = Some(model);
            if let Some(event) = event {
                return Poll::Ready(Some(event.into()));
            }
        }
    }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.0 {
            PageContent::Text(text) if text.is_empty() => None,
            PageContent::Text(text) => Some(std::mem::take(text)),
            PageContent::Events(events) => ready!(events.poll(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, PageContent::Text(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            PageContent::Text(text) => SizeHint::with_exact(text.len() as u64),
            PageContent::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for PageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            PageContent::Text(_) => "PageBody::Text",
            PageContent::Events(_) => "PageBody::Events",
        })
    }
}
