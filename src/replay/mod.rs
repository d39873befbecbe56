//! Replays: what other thresholds would have done with the calls that really came.
//!
//! The algorithms take the time as an argument, so a replay runs the very code of production over a
//! recording or an access log.

mod call;
mod csv;
mod fields;
mod lines;
mod log;
mod moments;
mod options;
mod recorder;
mod recording;
mod ring;
mod sorted;
mod template;

pub use call::{Call, End};
pub use log::{BrokenLine, LineCounts, Log, Progress};
pub use options::{Format, LogOptions};
pub use recorder::{
    HashOf, HashRequest, RecordPass, Recorder, RecorderBuilder, RecorderGate, RecorderHandle,
    Unhashed,
};
pub use recording::RecordingWriter;
pub use ring::RecorderSnapshot;
pub use sorted::Calls;
