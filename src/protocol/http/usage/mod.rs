//! The units that a response has used, as reported by its body, above all the tokens of a language
//! model.
//!
//! The tokens of a prompt are known only after the response, and in a stream only at its end. A
//! call therefore takes an estimate, and [`meter`] reads the body as it passes. At the end it calls
//! a closure, which settles:
//! [`RateLimitHandle::settle`](crate::rate_limit::RateLimitHandle::settle) refunds units taken in
//! excess, and charges units taken short. [`MeterLayer`] does so for every response of a service.
//!
//! Each byte is passed on unchanged, in its frame, and at once. The JSON is not parsed: a [small
//! state machine](Shape) looks for a few paths in it, however the events are split. Memory is
//! constant, below a kilobyte for each body, whatever the provider sends. Only for a
//! [closure](Shape::by) that reads events are these kept, up to a bound.
//!
//! | the response | the report |
//! |---|---|
//! | a stream with its last event ([`openai`]: `[DONE]`; [`anthropic`]: `message_stop`) | [`End::Complete`], at that event |
//! | a stream whose last event has no empty line after it | the same, at the end of the body |
//! | a stream that ends before that, a body that fails | [`End::Cut`], with the usage so far |
//! | an error of the provider in a stream, or in a body whose status is 200 | [`End::ErrorEvent`] |
//! | a body that its reader drops, a call that its caller drops | [`End::Left`] |
//! | a call that fails without a response (of [`MeterLayer`]) | [`End::Failed`] |
//! | JSON that is not a stream | [`End::Complete`], at its end |
//! | a usage in several events, or field by field | the largest of each field: they are totals so far |
//! | a response without a usage, or with one above 2^53 | `usage: None` |
//! | a body that is compressed | passed on unread: [`Unread::Compressed`]. Put a layer that decompresses inside |
//! | another type of content | passed on unread: [`Unread::OtherType`] |
//!
//! OpenAI's dialect reports the usage of a stream only if the request has `"stream_options":
//! {"include_usage": true}`.

mod body;
mod events;
mod json;
mod layer;
mod meter;
mod shape;

pub use body::{MeteredBody, meter};
pub use layer::{MeterLayer, Metered, MeteredFuture};
pub use meter::{End, Unread, UsageReport};
pub use shape::{Event, Shape, Usage, UsageField, anthropic, openai};
