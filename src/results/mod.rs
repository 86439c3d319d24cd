//! Reads the output logs (windows, errors): pages of them, single results, and what enters them.

pub(crate) mod index;
pub(crate) mod scan;
