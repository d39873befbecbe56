//! The ring between calls and the recorder's thread, and that thread.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

use crate::{
    ambient::clock::{self, Clock, Now},
    replay::{call::Call, recording::RecordingWriter},
};

/// A bounded channel, which never makes a call wait.
#[derive(Debug)]
pub(super) struct Ring {
    sender: SyncSender<Call>,
    clock: Clock,
    /// The clock's start, in nanoseconds since 1970.
    epoch: u64,
    shared: Arc<WriterState>,
    writer: Thread,
}

/// The counts of a recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderSnapshot {
    /// The calls that were written to the file.
    pub written: u64,
    /// The calls that are missing in it: the ring was full, the file had its maximum size, or the
    /// disk failed.
    pub lost: u64,
    /// The last error of the file.
    pub error: Option<String>,
}

/// The state shared with the thread. Relaxed unless noted: statistics, and flags that the thread
/// checks again.
#[derive(Debug, Default)]
struct WriterState {
    written: AtomicU64,
    lost: AtomicU64,
    /// The number of flushes requested.
    asked: AtomicU64,
    /// The last flush that is done. Release, paired with the Acquire in `flush`: the writes that it
    /// waits for come before it.
    flushed: AtomicU64,
    /// If true, the thread has ended. Release and Acquire, for the same reason.
    ended: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Ring {
    /// Starts the thread.
    pub(super) fn start(path: &Path, ring: usize, max_calls: u64) -> io::Result<Arc<Self>> {
        let file = RecordingWriter::open(path)?;
        let (sender, receiver) = sync_channel(ring.clamp(1, 1 << 24));
        let clock = Clock::start();
        let epoch = clock::epoch_nanos();
        let shared = Arc::<WriterState>::default();
        let writer = Writer {
            file,
            receiver,
            shared: shared.clone(),
            left: max_calls,
            told: 0,
            last: epoch,
        };
        let builder = thread::Builder::new().name("tower-keep-recorder".into());
        let thread = builder.spawn(move || writer.run())?;
        Ok(Arc::new(Self {
            sender,
            clock,
            epoch,
            shared,
            writer: thread.thread().clone(),
        }))
    }

    /// Returns the time, in nanoseconds since 1970.
    pub(super) fn now(&self, now: &Now) -> u64 {
        self.epoch.saturating_add(now.by(&self.clock))
    }

    /// Records a call that ends now.
    pub(super) fn record(&self, mut call: Call, now: &Now) {
        call.duration = self.now(now).saturating_sub(call.start);
        // The ring is full, or its thread has ended.
        if self.sender.try_send(call).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> RecorderSnapshot {
        let error = self.shared.error.lock();
        RecorderSnapshot {
            written: self.shared.written.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            error: error.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn flush(&self) {
        let shared = &self.shared;
        let wanted = shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
        while shared.flushed.load(Ordering::Acquire) < wanted
            && !shared.ended.load(Ordering::Acquire)
        {
            self.writer.unpark();
            thread::yield_now();
        }
    }
}

impl Drop for Ring {
    /// Wakes the thread, which ends once no recorder is left.
    fn drop(&mut self) {
        self.writer.unpark();
    }
}

/// The thread that writes.
struct Writer {
    file: RecordingWriter,
    receiver: Receiver<Call>,
    shared: Arc<WriterState>,
    left: u64,
    /// The number of lost calls noted in the file.
    told: u64,
    last: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let asked = self.shared.asked.load(Ordering::Relaxed);
            let more = self.drain();
            if let Err(error) = self.file.flush() {
                self.failed(&error);
            }
            self.shared.flushed.store(asked, Ordering::Release);
            if !more {
                self.shared.ended.store(true, Ordering::Release);
                return;
            }
            if self.shared.asked.load(Ordering::Relaxed) == asked {
                thread::park_timeout(INTERVAL);
            }
        }
    }

    /// Writes the calls in the ring. Returns false once no recorder is left.
    fn drain(&mut self) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(call) => self.write(&call),
                Err(end) => {
                    self.tell_lost();
                    return end == TryRecvError::Empty;
                }
            }
        }
    }

    fn write(&mut self, call: &Call) {
        self.last = self.last.max(call.ended());
        if self.left == 0 {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.left -= 1;
        match self.file.write(call) {
            Ok(()) => {
                self.shared.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                self.failed(&error);
            }
        }
    }

    fn tell_lost(&mut self) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let new = lost - self.told;
        if new > 0 && self.file.write_lost(new, self.last).is_ok() {
            self.told = lost;
        }
    }

    fn failed(&self, error: &io::Error) {
        let mut last = self
            .shared
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.to_string());
    }
}

/// The time between two writes.
const INTERVAL: Duration = Duration::from_millis(100);
