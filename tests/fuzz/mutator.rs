//! Inputs that are mutated from a corpus.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// Feeds a parser with each input of a corpus, and then with mutants of them, while time is left.
/// Mutants are spliced, and take bytes from a dictionary.
#[expect(clippy::disallowed_methods, reason = "it runs for some real time")]
pub(crate) fn fuzz(corpus: &[&[u8]], dictionary: &[u8], parse: impl Fn(&[u8])) {
    let seconds = env::var("TOWER_KEEP_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(0.25, |text| text.parse().expect("a number of seconds"));
    let time = Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let mut random = StdRng::seed_from_u64(corpus.len() as u64);
    corpus.iter().for_each(|input| check(input, &parse));
    while start.elapsed() < time {
        // The clock is read now and then: most parsers are faster than it.
        for _ in 0..100 {
            check(&mutant(&mut random, corpus, dictionary), &parse);
        }
    }
}

fn check(input: &[u8], parse: &impl Fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| parse(input))) {
        eprintln!("the input: {:?}", String::from_utf8_lossy(input));
        eprintln!("its bytes: {input:?}");
        resume_unwind(panic);
    }
}

fn mutant(random: &mut impl Rng, corpus: &[&[u8]], dictionary: &[u8]) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        let to = random.random_range(at..=input.len());
        match random.random_range(0..7) {
            0 => drop(input.drain(at..to)),
            1 => {
                let copy = input[at..to].to_vec();
                let times = if random.random_ratio(1, 20) { 200 } else { 1 };
                for _ in 0..times {
                    input.splice(at..at, copy.iter().copied());
                }
            }
            2 => {
                let other = corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                input.splice(at..to, other[from..].iter().copied());
            }
            3 => input.insert(at, random.random()),
            4 => {
                let count = random.random_range(1..24);
                let byte = dictionary[random.random_range(0..dictionary.len())];
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            _ => {
                let byte = dictionary[random.random_range(0..dictionary.len())];
                match input.get_mut(at) {
                    Some(place) => *place = byte,
                    None => input.push(byte),
                }
            }
        }
        input.truncate(MAX);
    }
    input
}

/// The longest input.
const MAX: usize = 4096;
