//! The recorder: a gate that admits every call, and records how it ended.

use std::{
    convert::Infallible,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    marker::PhantomData,
    path::PathBuf,
    sync::Arc,
    task::Context,
};

use crate::{
    Outcome,
    ambient::{chance, clock::Now},
    gate::{
        Admission, Admit, Completion, Controlled, Gate, GateLayer, Inquiry, Read, TicketPoll,
        Unsent,
    },
    protocol::{Choice, Chosen, Unset},
    replay::{
        call::{Call, End, folded},
        ring::{RecorderSnapshot, Ring},
    },
};

/// A layer that records calls into a file, for a [replay](crate::replay). Place it around the stack
/// whose thresholds are in question, or directly around the client.
///
/// A call costs two clock reads, a hash of its key and of its host, and a slot in a bounded
/// channel. It never waits: a thread of the recorder writes 32 bytes for each call. Calls that the
/// channel has no room for are lost, and the file holds their number.
pub type Recorder<K = Unhashed, H = Unhashed, P = Unset> = GateLayer<RecorderGate<K, H>, P>;

/// Settings of a [`Recorder`].
///
/// ```no_run
/// use http::Request;
/// use tower_keep::{protocol::http::Client, replay::RecorderBuilder};
///
/// # type Body = String;
/// let recorder = RecorderBuilder::new("calls.keep")
///     .host(|request: &Request<Body>| request.uri().host().map(str::to_owned))
///     .protocol(Client::new())
///     .build()?;
/// let handle = recorder.handle();
/// // In `main`, before it returns:
/// handle.flush();
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RecorderBuilder<K = Unhashed, H = Unhashed, P = Unset> {
    path: PathBuf,
    ring: usize,
    max_calls: u64,
    seed: Option<u64>,
    key: K,
    host: H,
    protocol: P,
}

/// A marker: calls have no key, or no host, in the recording.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unhashed;

/// A closure that finds the value to hash.
pub struct HashOf<F, T>(F, PhantomData<fn() -> T>);

/// A trait that finds the hash of a request.
pub trait HashRequest<Req> {
    /// Returns the hash, or `None` for a request without one.
    fn hash_of(&self, request: &Req, seed: u64) -> Option<u64>;
}

/// The gate of a [`Recorder`]. It admits every call.
pub struct RecorderGate<K = Unhashed, H = Unhashed> {
    ring: Arc<Ring>,
    seed: u64,
    key: K,
    host: H,
}

/// A handle of a running recorder. All clones are the same recorder.
#[derive(Debug, Clone)]
pub struct RecorderHandle(Arc<Ring>);

/// A call that is recorded at its end.
#[derive(Debug, Default)]
pub struct RecordPass(Option<Started>);

#[derive(Debug)]
struct Started {
    at: u64,
    key: u64,
    host: u32,
    cost: u32,
}

impl<F: Clone, T> Clone for HashOf<F, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<F, T> fmt::Debug for HashOf<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashOf")
    }
}

impl<Req> HashRequest<Req> for Unhashed {
    #[inline]
    fn hash_of(&self, _: &Req, _: u64) -> Option<u64> {
        None
    }
}

impl<Req, F, T> HashRequest<Req> for HashOf<F, T>
where
    F: Fn(&Req) -> Option<T>,
    T: Hash,
{
    fn hash_of(&self, request: &Req, seed: u64) -> Option<u64> {
        let found = (self.0)(request)?;
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed);
        found.hash(&mut hasher);
        // 0 marks a call without a hash.
        Some(hasher.finish().max(1))
    }
}

impl RecorderBuilder {
    /// Starts a recorder that appends to a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ring: 16_384,
            max_calls: 1 << 25,
            seed: None,
            key: Unhashed,
            host: Unhashed,
            protocol: Unset,
        }
    }
}

impl<K, H, P> RecorderBuilder<K, H, P> {
    /// Sets how many calls may be on their way to the file. Default 16384, some 0.8 MB: the calls
    /// that end within the 100 ms between two writes, at 160 000 calls a second.
    pub fn ring(mut self, calls: usize) -> Self {
        self.ring = calls;
        self
    }

    /// Sets the number of calls after which it stops. Default 33 554 432, which take one gibibyte.
    /// It counts anew with each start, and a recorder appends to its file. So rotate or remove the
    /// file between starts to bound its size.
    pub fn max_calls(mut self, calls: u64) -> Self {
        self.max_calls = calls;
        self
    }

    /// Sets the seed of the hashes of keys and hosts. Keep it secret. If all processes of a fleet
    /// have the same seed, their recordings agree on keys. Default: random, so that keys cannot be
    /// found by trying.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets a closure `Fn(&Req) -> Option<T: Hash>` that finds the key of a request, such as its
    /// tenant. Only its hash is recorded. Default: none.
    pub fn key<Req, T, F>(self, key: F) -> RecorderBuilder<HashOf<F, T>, H, P>
    where
        F: Fn(&Req) -> Option<T>,
        T: Hash,
    {
        RecorderBuilder {
            path: self.path,
            ring: self.ring,
            max_calls: self.max_calls,
            seed: self.seed,
            key: HashOf(key, PhantomData),
            host: self.host,
            protocol: self.protocol,
        }
    }

    /// Sets a closure `Fn(&Req) -> Option<T: Hash>` that finds the host that a request goes to.
    /// Each host has a circuit in the replay. Only its hash is recorded. Default: all calls go to
    /// one host.
    pub fn host<Req, T, F>(self, host: F) -> RecorderBuilder<K, HashOf<F, T>, P>
    where
        F: Fn(&Req) -> Option<T>,
        T: Hash,
    {
        RecorderBuilder {
            path: self.path,
            ring: self.ring,
            max_calls: self.max_calls,
            seed: self.seed,
            key: self.key,
            host: HashOf(host, PhantomData),
            protocol: self.protocol,
        }
    }

    /// Sets how results are classified. No default.
    pub fn protocol<Q>(self, protocol: Q) -> RecorderBuilder<K, H, Chosen<Q>> {
        RecorderBuilder {
            path: self.path,
            ring: self.ring,
            max_calls: self.max_calls,
            seed: self.seed,
            key: self.key,
            host: self.host,
            protocol: Chosen(protocol),
        }
    }

    /// Builds the gate alone, for use before others in a [`GateLayer`]: calls that a later gate
    /// rejects are recorded as rejected.
    ///
    /// # Errors
    /// The file fails, or the thread cannot be started.
    pub fn gate(self) -> io::Result<RecorderGate<K, H>> {
        Ok(self.parts()?.0)
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// The file fails, or the thread cannot be started.
    pub fn build<Q>(self) -> io::Result<Recorder<K, H, Q>>
    where
        P: Choice<Protocol = Q>,
    {
        let (gate, protocol) = self.parts()?;
        Ok(GateLayer::with_protocol(gate, protocol.protocol()))
    }

    fn parts(self) -> io::Result<(RecorderGate<K, H>, P)> {
        let seed = self.seed.unwrap_or_else(chance::word);
        let gate = RecorderGate {
            ring: Ring::start(&self.path, self.ring, self.max_calls)?,
            seed,
            key: self.key,
            host: self.host,
        };
        Ok((gate, self.protocol))
    }
}

impl<K, H> RecorderGate<K, H> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> RecorderHandle {
        RecorderHandle(self.ring.clone())
    }

    fn record(&self, pass: RecordPass, end: End, now: &Now) {
        if let Some(started) = pass.0 {
            let call = Call {
                end,
                cost: started.cost,
                key: started.key,
                host: started.host,
                ..Call::new(started.at, 0)
            };
            self.ring.record(call, now);
        }
    }
}

impl RecorderHandle {
    /// Returns the counts so far.
    #[must_use]
    pub fn snapshot(&self) -> RecorderSnapshot {
        self.0.snapshot()
    }

    /// Waits until all calls that have ended are in the file, a few milliseconds. It blocks the
    /// thread, so use it at the end of a program.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl<K, H> Gate for RecorderGate<K, H> {
    type Pass = RecordPass;
    type Ticket = Infallible;
    type Asked = ();

    fn give_back(&self, pass: RecordPass, _: Unsent, now: &Now) {
        self.record(pass, End::Rejected, now);
    }

    fn end(&self, pass: RecordPass, how: Completion, now: &Now) {
        let end = match how.untimed() {
            Completion::Answered(Outcome::Success, _) => End::Success,
            Completion::Answered(Outcome::Failure, _) => End::Failure,
            Completion::Answered(Outcome::Overload, _) => End::Overload,
            Completion::Answered(Outcome::Ignore, _) => End::Rejected,
            _ => End::Cancelled,
        };
        self.record(pass, end, now);
    }

    fn leave(&self, ticket: Infallible, _: &Now) {
        match ticket {}
    }
}

impl<K, H, Req> Admit<Req> for RecorderGate<K, H>
where
    K: HashRequest<Req>,
    H: HashRequest<Req>,
{
    fn admit(&self, inquiry: Inquiry<'_, Req, ()>, now: &Now) -> Admission<RecordPass, Infallible> {
        let host = self.host.hash_of(inquiry.request, self.seed);
        let key = self.key.hash_of(inquiry.request, self.seed);
        let started = Started {
            at: self.ring.now(now),
            key: key.unwrap_or(0),
            host: folded(host.unwrap_or(0)),
            cost: inquiry.demand.cost,
        };
        Admission::Granted(RecordPass(Some(started)))
    }

    fn poll_ticket(
        &self,
        ticket: &mut Infallible,
        _: Inquiry<'_, Req, ()>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<RecordPass> {
        match *ticket {}
    }
}

impl<K, H, Res> Read<Res> for RecorderGate<K, H> {}

impl<K, H> Controlled for RecorderGate<K, H> {
    type Handle = RecorderHandle;

    fn control(&self) -> RecorderHandle {
        self.handle()
    }
}

impl<K, H> fmt::Debug for RecorderGate<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle().snapshot().fmt(f)
    }
}
