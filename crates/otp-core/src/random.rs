//! Where randomness comes from.

/// Gives unpredictable bytes, fit for keys and codes.
pub trait Random {
    /// Overwrites all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

#[cfg(test)]
pub(crate) mod seeded {
    //! A source that gives the same bytes for the same seed.

    use std::cell::Cell;

    pub(crate) struct Seeded(Cell<u64>);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Self {
            Self(Cell::new(seed))
        }
    }

    impl super::Random for Seeded {
        /// SplitMix64 (Steele, Lea and Flood, 2014).
        fn fill(&self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(8) {
                self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
                let mut z = self.0.get();
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
            }
        }
    }
}
