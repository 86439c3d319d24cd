//! `weir maps suggest`: a map for the messages of some topics.

mod draft;
mod fields;
mod topics;

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use weir::config::Config;
use weir::mqtt::{filter_matches, is_filter};
use weir::pipeline::map_watch::WatchedMessage;

use super::message::{TrialMessage, open};
use super::watch::{WatchEvent, follow};
use crate::cli::SuggestArguments;

/// A message that a map is to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMessage {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Prints a map for what is seen on topics.
///
/// # Errors
/// There are no messages, or none from which a map can be made.
pub fn run(arguments: &SuggestArguments, config: &Config) -> anyhow::Result<ExitCode> {
    let filter = arguments.topic.as_str();
    if !is_filter(filter) {
        bail!("{filter:?} is no topic filter such as plant/pump-7/state or plant/+/state");
    }
    let native = config.ingest.telemetry_topics.iter().chain(&config.ingest.error_topics);
    if native.into_iter().any(|pattern| filter_matches(pattern, filter)) {
        bail!(
            "messages on {filter} are of weir's own form, and no map is asked: send {{\"metric\":\"temperature\",\"value\":21.5}} \
             there, or publish on another topic (ingest.telemetry_topics)"
        );
    }
    let seen = match &arguments.file {
        Some(file) => of_file(file, filter, arguments.count)?,
        None => live(arguments, config)?,
    };
    if seen.is_empty() {
        let place = match &arguments.file {
            Some(file) => format!("{} has no message on {filter}", file.display()),
            None => format!(
                "no message came on {filter} within {} s; give --for a longer time, or messages in a file with --file",
                arguments.seconds
            ),
        };
        bail!("{place}");
    }
    let text = draft::suggest(filter, &seen, config)?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Messages of a file as `weir maps test` reads it.
fn of_file(file: &Path, filter: &str, count: usize) -> anyhow::Result<Vec<SeenMessage>> {
    let mut seen = Vec::new();
    for (number, line) in (1..).zip(open(file)?.lines()) {
        let context = || format!("{}, line {number}", file.display());
        let line = line.with_context(context)?;
        if line.trim().is_empty() {
            continue;
        }
        let message = TrialMessage::read(&line).with_context(context)?;
        if filter_matches(filter, &message.topic) {
            seen.push(SeenMessage { payload: message.payload().with_context(context)?, topic: message.topic });
        }
        if seen.len() >= count {
            break;
        }
    }
    Ok(seen)
}

/// Messages that a running weir takes or does not take.
fn live(arguments: &SuggestArguments, config: &Config) -> anyhow::Result<Vec<SeenMessage>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut seen = Vec::new();
    let take = |event: WatchEvent| {
        if let WatchEvent::Message(message) = event
            && let Some(payload) = payload(&message)
        {
            seen.push(SeenMessage { topic: message.topic, payload });
        }
        seen.len() < arguments.count
    };
    let following = follow(&arguments.api, config, (Some(&arguments.topic), None), take);
    let time = Duration::from_secs(arguments.seconds);
    let ended = runtime.block_on(async { tokio::time::timeout(time, following).await });
    // The end of the time is no error.
    ended.unwrap_or(Ok(()))?;
    Ok(seen)
}

fn payload(message: &WatchedMessage) -> Option<Vec<u8>> {
    match (&message.payload, &message.payload_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).ok(),
        (None, None) => None,
    }
}
