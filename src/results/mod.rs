//! Reads the output logs (windows, errors): pages of them, single results, and what enters them.

pub mod follow;
pub(crate) mod index;
pub(crate) mod scan;
