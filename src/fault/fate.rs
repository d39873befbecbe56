//! The fate of a call, by hash: the same under any schedule.
//!
//! A stream of random numbers is consumed in the order in which threads arrive, and the same test
//! then fails one time in ten. So each question has its own number, hashed from the seed, the
//! fault, the request and the attempt. No draw shifts another.

use std::hash::{Hash, Hasher};

use crate::ambient::chance::{GOLDEN, scrambled};

/// The draws of one fault for one call.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    fault: u64,
    /// The request, by its number or by a key.
    subject: u64,
    attempt: u32,
}

/// A question that a draw answers.
#[derive(Debug, Clone, Copy)]
enum Question {
    Call,
    Peer,
    /// A delay takes two numbers.
    Delay(u8),
}

/// Hashes a seed and a fault, by its name and its index among those of the same name.
pub(super) fn of_fault(seed: u64, name: &str, place: usize) -> u64 {
    fold([seed, digest(&name), place as u64])
}

impl Draw {
    pub(super) fn new(fault: u64, number: u64, attempt: u32) -> Self {
        Self {
            fault,
            subject: fold([NUMBER, number]),
            attempt,
        }
    }

    /// Returns the draws of the request with this key, in place of its number.
    pub(super) fn by_key<K: Hash>(self, key: &K) -> Self {
        let subject = fold([KEY, digest(key)]);
        Self { subject, ..self }
    }

    /// Returns whether the call is one of this share of all attempts.
    pub(super) fn hits(self, share: f64) -> bool {
        self.unit(Question::Call) < share
    }

    /// Returns whether a peer is one of this share of all peers. The answer is the same for all of
    /// its calls.
    pub(super) fn hits_peer<K: Hash>(self, share: f64, peer: &K) -> bool {
        let attempt = 0;
        Self { attempt, ..self }
            .by_key(peer)
            .unit(Question::Peer)
            .lt(&share)
    }

    /// Returns two numbers for a delay.
    pub(super) fn for_delay(self) -> (f64, f64) {
        let unit = |number| self.unit(Question::Delay(number));
        (unit(0), unit(1))
    }

    /// Returns a uniform number from 0 to 1, 1 excluded.
    fn unit(self, question: Question) -> f64 {
        let question = match question {
            Question::Call => 0,
            Question::Peer => 1,
            Question::Delay(number) => 2 + u64::from(number),
        };
        let attempt = u64::from(self.attempt);
        let word = fold([self.fault, self.subject, attempt, question]);
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Hashes words one after the other.
fn fold<const N: usize>(words: [u64; N]) -> u64 {
    let step = |hash: u64, word| scrambled(hash.wrapping_add(GOLDEN) ^ word);
    words.into_iter().fold(0, step)
}

fn digest<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut digest = Digest(FNV_BASIS);
    key.hash(&mut digest);
    digest.finish()
}

/// An FNV-1a hasher. Its result does not change with the version of the compiler, as the standard
/// hasher's may. Keys that collide on purpose only share their fate.
struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const FNV_BASIS: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;
/// The marks of requests that are identified by their number, and by a key.
const NUMBER: u64 = 1;
const KEY: u64 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALLS: u32 = 20_000;

    fn share_of(mut hits: impl FnMut(u64) -> bool) -> f64 {
        let hit = (0..u64::from(CALLS)).filter(|number| hits(*number));
        hit.count() as f64 / f64::from(CALLS)
    }

    /// Returns whether a share is within five deviations, so one run in a million fails by chance.
    fn is_near(found: f64, share: f64) -> bool {
        (found - share).abs() <= 5.0 * (share * (1.0 - share) / f64::from(CALLS)).sqrt()
    }

    proptest! {
        // Each case checks 20 000 calls.
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn a_share_of_the_calls_is_hit(seed: u64, name in "[a-z_]{1,12}", share in 0.0..=1.0) {
            let fault = of_fault(seed, &name, 0);
            let found = share_of(|number| Draw::new(fault, number, 1).hits(share));
            prop_assert!(is_near(found, share), "{found} of {share}");
        }

        #[test]
        fn three_attempts_are_independent(seed: u64, share in 0.1..0.9) {
            let fault = of_fault(seed, "status", 0);
            let found = share_of(|number| {
                (1..=3).all(|attempt| Draw::new(fault, number, attempt).hits(share))
            });
            prop_assert!(is_near(found, share.powi(3)), "{found} of {share}^3");
        }

        #[test]
        fn faults_are_independent(seed: u64, share in 0.1..0.9) {
            let faults = [("delay", 0), ("status", 0), ("status", 1)];
            let faults = faults.map(|(name, place)| of_fault(seed, name, place));
            let found = share_of(|number| {
                faults.iter().all(|fault| Draw::new(*fault, number, 1).hits(share))
            });
            prop_assert!(is_near(found, share.powi(3)), "{found} of {share}^3");
        }

        #[test]
        fn a_greater_share_hits_the_same_calls_and_more(
            seed: u64, number: u64, attempt in 1..9_u32, small in 0.0..1.0, more in 0.0..1.0,
        ) {
            let draw = Draw::new(of_fault(seed, "hang", 0), number, attempt);
            prop_assert!(!draw.hits(small) || draw.hits(small + more));
        }

        #[test]
        fn a_sick_peer_is_sick_for_all_of_its_calls(
            seed: u64, peer: String, numbers in prop::collection::vec(any::<u64>(), 2..9),
            share in 0.0..=1.0,
        ) {
            let fault = of_fault(seed, "delay", 0);
            let sick = |number| Draw::new(fault, number, 1 + (number % 3) as u32)
                .hits_peer(share, &peer);
            let first = sick(numbers[0]);
            prop_assert!(numbers.into_iter().all(|number| sick(number) == first));
        }

        #[test]
        fn a_share_of_the_peers_is_sick(seed: u64, share in 0.0..=1.0) {
            let fault = of_fault(seed, "delay", 0);
            let found = share_of(|peer| {
                Draw::new(fault, 0, 1).hits_peer(share, &format!("10.0.{peer}"))
            });
            prop_assert!(is_near(found, share), "{found} of {share}");
        }

        #[test]
        fn a_key_decides_whatever_the_number(seed: u64, one: u64, other: u64, key: String) {
            let fault = of_fault(seed, "reset", 0);
            let hits = |number| Draw::new(fault, number, 2).by_key(&key).hits(0.5);
            prop_assert_eq!(hits(one), hits(other));
        }
    }

    #[test]
    fn fates_are_the_same_in_every_build() {
        let fault = of_fault(7, "status", 0);
        let hit = |number: &u64| Draw::new(fault, *number, 1).hits(0.3);
        let hit: Vec<_> = (0..20).filter(hit).collect();
        assert_eq!(hit, EXPECTED);
    }

    const EXPECTED: [u64; 8] = [1, 2, 6, 8, 10, 12, 13, 15];
}
