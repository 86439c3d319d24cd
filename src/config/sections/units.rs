//! Units of the default values.

pub(super) const DAY_MS: i64 = 86_400_000;
pub(super) const KIB: usize = 1024;
pub(super) const MIB: u64 = 1024 * 1024;
