//| the closure of `Plain::classify` does not fit
//~ Classify<u32, Box<

use std::io;
use tower::{Layer, service_fn};
use tower_keep::{Outcome, check, protocol::Plain, stack};

fn mistake() {
    let plain = Plain::classify(|result: Result<&u32, &io::Error>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    });
    let stack = stack::client().plain(plain.idempotent()).build().unwrap();
    check::<u32, _>(&stack.layer(service_fn(async |n: u32| Ok::<_, io::Error>(n))));
}
