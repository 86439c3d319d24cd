//! `/api/v1/windows` and `/api/v1/errors`: lists of results and single errors.
//!
//! A list is one query of an output log (`results::scan`), which bounds it. Where a bound ends it early, the answer has a
//! cursor to go on with. Parameters, cursors as text, JSON and CSV are made here.

mod csv;
mod errors;
mod list;
mod windows;

pub(in crate::http) use errors::{detail as error, error_seq, list as errors};
pub(in crate::http) use windows::list as windows;
