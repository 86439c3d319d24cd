//! The code of the fuzz targets. The tests of weir contain it too, so that they can run stored inputs.

#[path = "../../tests/it/formats/fuzz_entry/mod.rs"]
pub mod fuzz_entry;
