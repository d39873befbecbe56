//! What every layer owes: one contract for all, readiness, order, deadlines and settings; and the
//! layers that admit nothing themselves.

mod bad_input;
mod call_settings;
mod callers_deadline;
mod composition;
mod contract;
mod deadline;
mod deadline_told;
#[cfg(feature = "testing")]
mod determinism;
mod draining;
mod error_readings;
mod fallback;
mod fallback_backup;
mod faults;
mod instance;
mod keys;
mod keys_at_once;
mod order;
mod readme;
mod shadow;
mod simulation;
mod spill;
#[cfg(feature = "testing")]
mod stack_by_hand;
mod stack_changes;
mod stack_compositions;
mod stack_parts;
mod stack_updates;
mod support;
mod timeout;
mod timeout_body;
mod type_names;
