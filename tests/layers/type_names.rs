//! What a user reads of the crate's types in a message of the compiler.

use tower::{BoxError, Layer, service_fn};
use tower_keep::{protocol::Plain, stack};

/// The name with all paths and all parameters, so never shorter than what a message prints.
fn name_of<T>(_: &T) -> &'static str {
    std::any::type_name::<T>()
}

#[test]
fn the_type_of_a_stack_is_short() {
    for name in [
        name_of(&stack::client().http().build()),
        name_of(&stack::client().plain(Plain::new()).build()),
    ] {
        assert!(name.len() <= 200, "{} letters: {name}", name.len());
    }
}

#[test]
fn a_stack_adds_little_to_the_type_of_its_service() {
    let service = service_fn(async |_: http::Request<String>| {
        Ok::<_, BoxError>(http::Response::new(String::new()))
    });
    let own = name_of(&service).len();
    let layered = stack::client().http().build().unwrap().layer(service);
    let name = name_of(&layered);
    assert!(name.len() <= 200 + own, "{} letters: {name}", name.len());
}
