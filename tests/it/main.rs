//! The appliance from outside: the real process, real sockets, a fresh data directory for each test.
//!
//! Everything waits for conditions with a deadline. What a run chose at random is printed with its seed; a failing test
//! shows what weir logged.

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
