//! The life of the daemon: start, signals, reload, end.

mod check;
mod lifecycle;
mod reload;
mod service;

use std::process::Output;

/// What a command printed.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
