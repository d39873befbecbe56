//! SipHash-2-4 with 128 bits, for hashes that leave the process.
//!
//! The hasher of the standard library may change with each version of Rust. Two builds of one
//! program would then know one key by two hashes, and would count it twice in a store that they
//! share. So hashes that other processes read are made by a function that is published and does not
//! change: [SipHash-2-4](https://131002.net/siphash/) (Aumasson and Bernstein, INDOCRYPT 2012) with
//! its output of 128 bits. Under a secret it is a pseudorandom function: without the secret nobody
//! can find two keys with one hash, or test a guess of a key. At 128 bits two of a thousand million
//! keys share a hash by chance once in 10^21 such sets.
//!
//! **Width and order of bytes.** `Hash` gives a hasher integers in the order of the machine, and
//! `usize` in its width. This hasher takes all integers in little-endian order, and `usize` and
//! `isize` as 64 bits. A slice of integers wider than a byte reaches a hasher as raw memory, which
//! none can reorder.

use std::hash::Hasher;

use siphasher::sip128::{Hash128, Hasher128, SipHasher24};

/// A running hash of what was written so far.
#[derive(Debug, Clone)]
pub(super) struct FleetHasher(SipHasher24);

impl FleetHasher {
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(secret))
    }

    /// The hash as two words. In little-endian order, one after the other, they are the 16 bytes
    /// of the published function.
    pub(super) fn words(&self) -> [u64; 2] {
        let Hash128 { h1, h2 } = self.0.finish128();
        [h1, h2]
    }
}

impl Hasher for FleetHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_i16(&mut self, number: i16) {
        self.write(&number.to_le_bytes());
    }

    fn write_i32(&mut self, number: i32) {
        self.write(&number.to_le_bytes());
    }

    fn write_i64(&mut self, number: i64) {
        self.write(&number.to_le_bytes());
    }

    fn write_i128(&mut self, number: i128) {
        self.write(&number.to_le_bytes());
    }

    fn write_isize(&mut self, number: isize) {
        self.write_i64(number as i64);
    }

    /// The first half of the hash.
    fn finish(&self) -> u64 {
        self.words()[0]
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hash;

    use proptest::prelude::*;

    use super::*;

    /// Numbers of bytes, and the hash of the bytes 0, 1, 2 and so on. The secret is the bytes 0 to
    /// 15. From `vectors.h` of the authors' reference implementation.
    const KNOWN: [(u8, &str); 11] = [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (3, "9c70b60c5267a94e5f33b6b02985ed51"),
        (4, "f88164c12d9c8faf7d0f6e7c7bcd5579"),
        (5, "1368875980776f8854527a07690e9627"),
        (6, "14eeca338b208613485ea0308fd7a15e"),
        (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
        (9, "264499060ad9baabc47f8b02bb6d71ed"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ];

    fn secret() -> [u8; 16] {
        std::array::from_fn(|place| u8::try_from(place).unwrap())
    }

    fn hex(hasher: &FleetHasher) -> String {
        let bytes = hasher.words().map(u64::to_le_bytes);
        bytes
            .as_flattened()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn of(value: &(impl Hash + ?Sized)) -> String {
        let mut hasher = FleetHasher::new(&secret());
        value.hash(&mut hasher);
        hex(&hasher)
    }

    fn of_bytes(bytes: &[u8]) -> String {
        let mut hasher = FleetHasher::new(&secret());
        hasher.write(bytes);
        hex(&hasher)
    }

    #[test]
    fn hashes_are_those_of_the_reference_implementation() {
        for (length, known) in KNOWN {
            let bytes: Vec<_> = (0..length).collect();
            assert_eq!(of_bytes(&bytes), known, "{length} bytes");
        }
    }

    #[test]
    fn integers_are_read_in_little_endian_order() {
        assert_eq!(of(&0x0100_u16), of_bytes(&[0, 1]));
        assert_eq!(of(&0x0302_0100_u32), of_bytes(&[0, 1, 2, 3]));
        assert_eq!(of(&-2_i32), of_bytes(&[0xfe, 0xff, 0xff, 0xff]));
        assert_eq!(of(&7_u64), of_bytes(&[7, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(
            of(&(1_u128 << 120)),
            of_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        );
        assert_eq!(of(&-1_i128), of_bytes(&[0xff; 16]));
        assert_eq!(of(&true), of_bytes(&[1]));
    }

    #[test]
    fn sizes_are_read_as_64_bits() {
        assert_eq!(of(&7_usize), of(&7_u64));
        assert_eq!(of(&-7_isize), of(&-7_i64));
        assert_eq!(
            of(&[9_u8, 8][..]),
            of_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 9, 8]),
            "a length"
        );
    }

    /// The standard library chooses what text, tuples and enums write. A version that changes it
    /// fails here.
    #[test]
    fn usual_keys_write_what_they_wrote_before() {
        #[derive(Hash)]
        enum Plan {
            #[expect(dead_code, reason = "the variant before")]
            Free,
            Paid(u8),
        }
        assert_eq!(of("ann"), of_bytes(b"ann\xff"));
        assert_eq!(of(&"ann".to_owned()), of("ann"));
        assert_eq!(of(&(1_u8, "b")), of_bytes(b"\x01b\xff"));
        assert_eq!(of(&Plan::Paid(5)), of_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 5]));
        assert_eq!(of(&[1_u8, 2]), of_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 2]));
        let address = std::net::Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(of(&address), of_bytes(&[10, 0, 0, 1]));
    }

    proptest! {
        #[test]
        fn parts_hash_as_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            cuts in proptest::collection::vec(0_usize..64, 0..4),
        ) {
            let mut hasher = FleetHasher::new(&secret());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                hasher.write(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(hex(&hasher), of_bytes(&bytes));
        }
    }
}
