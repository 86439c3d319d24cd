//! Tests of the maps: patterns, and the corpus of device messages.

mod corpus;
mod language;
mod patterns;
