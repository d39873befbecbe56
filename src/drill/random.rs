//! The draws of the model: a stream for each purpose, so that one never shifts another.

use crate::ambient::chance::Stream;

/// Random numbers that follow from a seed and a purpose.
#[derive(Debug, Clone)]
pub(super) struct Random(Stream);

/// The purpose of a stream. Traffic is the same whatever the stack does with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The arrivals of a source, by its number.
    Traffic(u64),
    /// Service times and fates at an upstream, by its number.
    Upstream(u64),
    /// The draws of the stack.
    Stack,
}

impl Random {
    pub(super) fn new(seed: u64, purpose: Purpose) -> Self {
        Self(Stream::new(seed_for(seed, purpose)))
    }

    /// Returns a uniform number from 0 to 1, 1 excluded.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns whether an event of this probability happens. Draws only if that is not certain.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.unit() < probability)
    }

    /// Returns an exponentially distributed number, of mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Returns a normally distributed number, of mean 0 and deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Returns a uniform number below `count`, which is at least one.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let count = count.max(1) as u64;
        let wide = u128::from(self.0.word()) * u128::from(count);
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Returns the seed of one purpose.
pub(super) fn seed_for(seed: u64, purpose: Purpose) -> u64 {
    let purpose = match purpose {
        Purpose::Stack => 0,
        Purpose::Traffic(number) => 1 + 2 * number,
        Purpose::Upstream(number) => 2 + 2 * number,
    };
    // Seeds are small and consecutive, and so are purposes. One word of each separates them.
    Stream::new(seed).word() ^ Stream::new(!purpose).word()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(mut draw: impl FnMut(&mut Random) -> f64) -> f64 {
        let mut random = Random::new(1, Purpose::Stack);
        (0..100_000).map(|_| draw(&mut random)).sum::<f64>() / 100_000.0
    }

    #[test]
    fn draws_have_their_means() {
        assert!((mean(Random::unit) - 0.5).abs() < 0.01);
        assert!((mean(Random::exponential) - 1.0).abs() < 0.02);
        assert!(mean(Random::normal).abs() < 0.02);
        assert!((mean(|random| random.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(|random| random.below(5) as f64) - 2.0).abs() < 0.02);
    }

    #[test]
    fn purposes_and_seeds_draw_apart() {
        let first = |seed, purpose| Random::new(seed, purpose).unit();
        let draws = [
            first(1, Purpose::Stack),
            first(2, Purpose::Stack),
            first(1, Purpose::Traffic(0)),
            first(1, Purpose::Traffic(1)),
            first(1, Purpose::Upstream(0)),
        ];
        for (number, draw) in draws.iter().enumerate() {
            assert!(!draws[..number].contains(draw), "{draws:?}");
        }
    }
}
