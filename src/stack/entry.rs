//! Where stacks begin.

/// A stack for a client. Choose its protocol next.
///
/// **Clients that call rarely.** A circuit judges by 8 calls in 10 s. At 10 calls a second and more
/// no circuit opens while a tenth of the calls fails. At one call a second some do. Then 0.03 % of
/// the good calls are rejected, and up to 0.2 % in half an hour of bad luck
/// ([figures](crate::guide::choosing#what-drills-have-shown)).
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
