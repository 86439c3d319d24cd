//! Integration tests: each starts a real weir process with its own data directory and talks to it through real sockets.
//!
//! Tests wait for conditions with a deadline. Randomised tests print their seed; a failing test
//! prints the log of its weir. Helpers are in the crate `weir-test-kit`.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helper functions too")]

mod access;
mod commands;
mod daemon;
mod docs;
mod faults;
mod formats;
mod hostile;
mod http;
mod layout;
mod mqtt;
mod peers;
mod readings;
mod tls;

use weir_test_kit::process::Program;

/// The program under test.
const WEIR: Program = weir_test_kit::program!();
