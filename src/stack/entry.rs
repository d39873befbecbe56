//! Where stacks begin.

/// A stack for a client. Choose its protocol next.
pub fn client() -> Client {
    Client(())
}

/// A stack for a server. Choose its protocol next.
pub fn server() -> Server {
    Server(())
}

/// A client's stack that needs its protocol.
#[derive(Debug)]
#[must_use = "choose a protocol: `.http()`, `.grpc()` or `.plain(..)`"]
pub struct Client(());

/// A server's stack that needs its protocol.
#[derive(Debug)]
#[must_use = "choose a protocol: `.http()`, `.grpc()` or `.plain()`"]
pub struct Server(());
