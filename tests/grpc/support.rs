//! What the tests of gRPC share: a real server on loopback that answers as it is told, and calls of
//! all four kinds.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, StreamExt, stream};
use tokio::sync::Notify;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
pub(crate) mod echo;

use echo::{Message, echo_client::EchoClient, echo_server::EchoServer};

/// The four kinds of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    Bidirectional,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind::Unary,
    Kind::ServerStream,
    Kind::ClientStream,
    Kind::Bidirectional,
];

/// What the server does with a call; without a reply for it, it sends back what it was sent.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Fails before it answers: trailers only.
    Fail(Status),
    /// Of a stream: answers, and fails before the first message.
    FailAfterHead(Status),
    /// Of a stream: fails after the first message.
    FailAfterMessage(Status),
    /// Answers once it is notified.
    Hold(Arc<Notify>),
    /// Never answers.
    Hang,
}

/// A service that echoes, and counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Echo {
    calls: Arc<AtomicUsize>,
    script: Arc<Mutex<VecDeque<Reply>>>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

impl Echo {
    /// How many calls arrived.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The next calls are answered so, in order.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    fn next(&self) -> Option<Reply> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.script.lock().unwrap().pop_front()
    }

    async fn one(&self) -> Result<(), Status> {
        match self.next() {
            None => Ok(()),
            Some(Reply::Hold(notify)) => {
                notify.notified().await;
                Ok(())
            }
            Some(Reply::Hang) => std::future::pending().await,
            Some(
                Reply::Fail(status)
                | Reply::FailAfterHead(status)
                | Reply::FailAfterMessage(status),
            ) => Err(status),
        }
    }

    fn many(
        &self,
        echoed: impl Stream<Item = Result<Message, Status>> + Send + 'static,
    ) -> Result<Response<Messages>, Status> {
        let messages: Messages = match self.next() {
            None => Box::pin(echoed),
            Some(Reply::Fail(status)) => return Err(status),
            Some(Reply::FailAfterHead(status)) => Box::pin(stream::iter([Err(status)])),
            Some(Reply::FailAfterMessage(status)) => {
                Box::pin(stream::iter([Ok(message("first")), Err(status)]))
            }
            Some(Reply::Hold(notify)) => Box::pin(stream::once(async move {
                notify.notified().await;
                Ok(message("held"))
            })),
            Some(Reply::Hang) => Box::pin(stream::pending()),
        };
        Ok(Response::new(messages))
    }
}

#[tonic::async_trait]
impl echo::echo_server::Echo for Echo {
    type ServerStreamStream = Messages;
    type BidirectionalStream = Messages;

    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        self.one().await?;
        Ok(Response::new(request.into_inner()))
    }

    async fn server_stream(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        let message = request.into_inner();
        self.many(stream::iter([Ok(message.clone()), Ok(message)]))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Message>, Status> {
        let mut request = request.into_inner();
        let mut text = String::new();
        while let Some(message) = request.message().await? {
            text += &message.text;
        }
        self.one().await?;
        Ok(Response::new(message(&text)))
    }

    async fn bidirectional(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Messages>, Status> {
        self.many(request.into_inner())
    }
}

pub(crate) fn message(text: &str) -> Message {
    Message {
        text: text.to_owned(),
    }
}

/// Binds a port on loopback.
pub(crate) async fn bind() -> (TcpIncoming, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpIncoming::from(listener), address)
}

/// Serves `echo` without any layer, and connects to it.
pub(crate) async fn serve(echo: Echo) -> Channel {
    let (incoming, address) = bind().await;
    let server = Server::builder().add_service(EchoServer::new(echo));
    tokio::spawn(server.serve_with_incoming(incoming));
    connect(address)
}

pub(crate) fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A whole call of a kind, to its last message: `"a"` and, of the client's streams, `"b"`.
pub(crate) async fn call<S, B>(service: S, kind: Kind) -> Result<Vec<String>, Status>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: Into<tower::BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError> + Send,
{
    let mut client = EchoClient::new(service);
    let several = || stream::iter([message("a"), message("b")]);
    let stream = match kind {
        Kind::Unary => return one(client.unary(message("a")).await),
        Kind::ClientStream => return one(client.client_stream(several()).await),
        Kind::ServerStream => client.server_stream(message("a")).await?,
        Kind::Bidirectional => client.bidirectional(several()).await?,
    };
    let messages: Vec<_> = stream.into_inner().collect().await;
    messages
        .into_iter()
        .map(|message| message.map(|message| message.text))
        .collect()
}

/// What a call of a kind is answered with, if all is well.
pub(crate) fn echoed(kind: Kind) -> Vec<String> {
    let texts: &[&str] = match kind {
        Kind::Unary => &["a"],
        Kind::ServerStream => &["a", "a"],
        Kind::ClientStream => &["ab"],
        Kind::Bidirectional => &["a", "b"],
    };
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn one(result: Result<Response<Message>, Status>) -> Result<Vec<String>, Status> {
    result.map(|response| vec![response.into_inner().text])
}
