//! Seeds of randomised tests.

/// The seed in `WEIR_TEST_SEED`, or else one from the clock. Prints it, so that a failed run can be repeated.
pub fn announced_seed(test: &str) -> u64 {
    let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| crate::wait::now_ms() as u64);
    println!("{test}: WEIR_TEST_SEED={seed}");
    seed
}
