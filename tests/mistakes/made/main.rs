//! The mistakes, each a file. None compiles, and this is empty unless they are to be compiled: see
//! the file above.
#![cfg(any(keep_mistakes = "lifetimes", keep_mistakes = "types"))]
#![allow(unused, reason = "none of it compiles")]

#[cfg(keep_mistakes = "types")]
mod answer_of_another_type;
#[cfg(keep_mistakes = "types")]
mod body_not_clone;
#[cfg(keep_mistakes = "types")]
mod body_of_a_rejection;
#[cfg(keep_mistakes = "types")]
mod body_of_another_kind;
#[cfg(keep_mistakes = "types")]
mod body_written_out;
#[cfg(keep_mistakes = "types")]
mod breaker_without_protocol;
#[cfg(keep_mistakes = "types")]
mod builder_for_a_gate;
#[cfg(keep_mistakes = "types")]
mod builder_for_a_layer;
#[cfg(keep_mistakes = "types")]
mod builder_on_a_router;
#[cfg(keep_mistakes = "types")]
mod builders_for_gates;
#[cfg(keep_mistakes = "types")]
mod channel_over_http;
#[cfg(keep_mistakes = "types")]
mod classifier_of_another_protocol;
#[cfg(keep_mistakes = "types")]
mod classifier_of_inner_errors;
#[cfg(keep_mistakes = "types")]
mod client_not_called;
#[cfg(keep_mistakes = "types")]
mod connection_for_a_store;
#[cfg(keep_mistakes = "types")]
mod cost_missing;
#[cfg(keep_mistakes = "types")]
mod finder_of_another_request;
#[cfg(keep_mistakes = "types")]
mod function_through_builders;
#[cfg(keep_mistakes = "types")]
mod function_without_a_future;
#[cfg(keep_mistakes = "types")]
mod gates_without_protocol;
#[cfg(keep_mistakes = "types")]
mod hedge_without_protocol;
#[cfg(keep_mistakes = "lifetimes")]
mod key_that_borrows;
#[cfg(keep_mistakes = "types")]
mod layer_for_a_part;
#[cfg(keep_mistakes = "types")]
mod number_that_learns;
#[cfg(keep_mistakes = "types")]
mod protocol_without_deadlines;
#[cfg(keep_mistakes = "types")]
mod rate_for_a_limit;
#[cfg(keep_mistakes = "types")]
mod request_not_clone;
#[cfg(keep_mistakes = "types")]
mod response_without_http;
#[cfg(keep_mistakes = "types")]
mod retry_on_a_server;
#[cfg(keep_mistakes = "types")]
mod retry_undeclared;
#[cfg(keep_mistakes = "types")]
mod retry_without_protocol;
#[cfg(keep_mistakes = "types")]
mod router_without_protocol;
#[cfg(keep_mistakes = "types")]
mod service_not_clone;
#[cfg(keep_mistakes = "types")]
mod setting_before_its_key;
#[cfg(keep_mistakes = "lifetimes")]
mod spawned_async_closure;
