//! Chance for simulations: all of it from one seed, so that each can be played again.

/// xorshift64*, <https://www.jstatsoft.org/article/view/v008i14>.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> Option<T> {
        let chosen = self.below(choices.len().max(1) as u64);
        choices.get(chosen as usize).cloned()
    }
}
