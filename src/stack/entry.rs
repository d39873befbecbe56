//! The functions that start a stack.

/// Starts a stack for a client. Choose its protocol next.
///
/// **Clients that call rarely.** A circuit judges by 8 calls in 10 s. At 10 calls a second and
/// more, no circuit opens while a tenth of the calls fails. At one call a second some do. Then 0.03
/// % of the good calls are rejected, and up to 0.2 % in an unlucky half hour
/// ([figures](crate::guide::choosing#what-drills-have-shown)).
pub fn client() -> ClientWithoutProtocol {
    ClientWithoutProtocol(())
}

/// Starts a stack for a server. Choose its protocol next.
pub fn server() -> ServerWithoutProtocol {
    ServerWithoutProtocol(())
}

/// A client's stack before its protocol is chosen.
#[derive(Debug)]
#[must_use = "choose a protocol: `.http()`, `.grpc()` or `.plain(..)`"]
pub struct ClientWithoutProtocol(());

/// A server's stack before its protocol is chosen.
#[derive(Debug)]
#[must_use = "choose a protocol: `.http()`, `.grpc()` or `.plain()`"]
pub struct ServerWithoutProtocol(());
