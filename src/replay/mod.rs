//! Replays: the effect that other thresholds would have had on recorded calls.
//!
//! The algorithms take the time as an argument, so a replay runs the production code over a
//! recording or an access log. The [guide](crate::guide::what_if) walks through the program
//! `what_if`, which is this module with a command line.

mod advise;
mod advise_circuit;
mod advise_more;
mod assertion;
mod bursts;
mod call;
mod candidates;
mod chance;
mod csv;
mod engine;
mod fields;
mod findings;
mod hedges;
mod histogram;
mod html;
mod incidents;
mod json;
mod limit;
mod lines;
mod log;
mod moments;
mod options;
mod picture;
mod program;
mod recorder;
mod recording;
mod report;
mod ring;
mod rows;
mod sorted;
mod stack;
mod survey;
mod tally;
mod template;
mod text;
mod thresholds;
mod words;

pub use assertion::Assertion;
pub use bursts::{BurstPoint, burst_curve};
pub use call::{Call, End};
pub use chance::false_trips;
pub use engine::{Upstream, replay};
pub use hedges::HedgeRow;
pub use histogram::Histogram;
pub use incidents::Incident;
pub use log::{BrokenLine, LineCounts, Log, Progress};
pub use options::{Format, LogOptions};
pub use program::run;
pub use recorder::{
    HashOf, HashRequest, RecordPass, Recorder, RecorderBuilder, RecorderGate, RecorderHandle,
    Unhashed,
};
pub use recording::RecordingWriter;
pub use report::Report;
pub use ring::RecorderSnapshot;
pub use rows::{Question, Row};
pub use sorted::Calls;
pub use stack::StackSettings;
pub use survey::{HostSurvey, Survey};
pub use tally::{Half, Replayed, Tally};
pub use thresholds::{RateThreshold, RetryThreshold, Thresholds};
