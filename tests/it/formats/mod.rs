//! Bytes from outside: files of earlier versions, and the inputs of the fuzz targets.

mod fuzz;
mod fuzz_entry;
mod versions;
