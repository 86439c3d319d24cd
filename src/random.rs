//! The one random generator of simulated devices, simulated disks, tests and benches. The same seed gives the same
//! choices on every machine, so a seed is all that it takes to repeat a run. It is not for secrets: those come from the
//! operating system (`access`).

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one member of a group, independent of the generators of the other members.
    pub fn for_member(seed: u64, index: u64) -> Self {
        Self::new(seed ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03)).fork()
    }

    /// A generator seeded by this one, so that the choices of one part do not shift the choices of another.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, or 0 when `bound` is 0. Stored seeds of the simulation name runs through this reduction,
    /// so it stays the remainder, whose bias is far below what a test can see.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// A number in `0..=limit`, by multiplication and shift: the sequence that seeds of `weir simulate` stand for.
    pub fn up_to(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next_u64()) * (u128::from(limit) + 1)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// An index into a slice of length `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// One of `choices`, which is not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `share`.
    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// True once in `n` times on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        // First outputs of the reference implementation for seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn stays_within_its_limits() {
        let mut random = Random::new(7);
        let mut seen = [false; 4];
        for _ in 0..1_000 {
            seen[random.up_to(3) as usize] = true;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(random.up_to(0), 0);
        assert!(random.up_to(u64::MAX) > 0);
        assert!((0..1_000).all(|_| random.below(7) < 7 && (-3..=3).contains(&random.range(-3, 3))));
        assert_eq!((random.below(0), random.index(1), *random.pick(&[5])), (0, 0, 5));
    }

    #[test]
    fn chance_keeps_its_extremes() {
        let mut random = Random::new(7);
        assert!((0..1_000).all(|_| random.chance(1.0)));
        assert!((0..1_000).all(|_| !random.chance(0.0)));
    }

    #[test]
    fn members_differ() {
        assert_ne!(Random::for_member(1, 0).next_u64(), Random::for_member(1, 1).next_u64());
        assert_eq!(Random::for_member(1, 5).next_u64(), Random::for_member(1, 5).next_u64());
    }
}
