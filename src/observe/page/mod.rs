//! A live page of a [`Registry`](crate::observe::Registry), as a Tower service.

mod answer;
mod body;
mod hosts;
mod hub;
mod model;
mod others;
mod service;
mod whose;

pub use body::PageBody;
pub use service::{Page, page};
pub use whose::PageRegistry;
