//! `weir maps watch`: what the maps of a running weir make of messages, as they come.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde::Deserialize;

use weir::client::{HttpClient, base_url, percent_encoded};
use weir::config::Config;
use weir::core::formats::ShownReading;
use weir::pipeline::map_watch::WatchedMessage;

use super::outcome::{ignored, one_line, status};
use crate::cli::{DeviceApi, WatchArguments};

/// What a view tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// A message.
    Message(Box<WatchedMessage>),
    /// So many messages were missed.
    Missed(u64),
}

#[derive(Deserialize)]
struct MissedAnswer {
    missed: u64,
}

/// Prints a line for each message until the command is ended, or until it printed as many as it was asked for.
///
/// # Errors
/// weir cannot be reached, or refuses.
pub fn run(arguments: &WatchArguments, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut left = arguments.count;
    let print = |event: WatchEvent| {
        match event {
            WatchEvent::Message(message) => {
                let line =
                    if arguments.json { serde_json::to_string(&message).unwrap_or_default() } else { line(&message) };
                left = left.map(|left| left.saturating_sub(1));
                // A closed pipe is the end of `weir maps watch | head`.
                if writeln!(std::io::stdout().lock(), "{line}").is_err() {
                    return false;
                }
            }
            WatchEvent::Missed(count) => eprintln!("weir: {count} messages came too fast and are not shown"),
        }
        left != Some(0)
    };
    let filter = (arguments.topic.as_deref(), arguments.map.as_deref());
    runtime.block_on(follow(&arguments.api, config, filter, print))?;
    Ok(ExitCode::SUCCESS)
}

/// Follows the messages on topics that match the first, of the map that is the second, until `take` returns `false`.
///
/// # Errors
/// weir cannot be reached, or refuses.
pub async fn follow(
    api: &DeviceApi,
    config: &Config,
    (topic, map): (Option<&str>, Option<&str>),
    mut take: impl FnMut(WatchEvent) -> bool,
) -> anyhow::Result<()> {
    let client = HttpClient::new(&base_url(api.url.as_deref(), config), &api.access)?;
    let mut path = "/api/v1/maps/watch?".to_owned();
    for (name, value) in [("topic", topic), ("map", map)] {
        if let Some(value) = value {
            path += &format!("{name}={}&", percent_encoded(value));
        }
    }
    let path = path.trim_end_matches(['&', '?']);
    let mut wrong = None;
    let read = |name: &str, data: &str| {
        let event = match name {
            "missed" => serde_json::from_str(data).map(|MissedAnswer { missed }| WatchEvent::Missed(missed)),
            _ => serde_json::from_str(data).map(WatchEvent::Message),
        };
        match event {
            Ok(event) => take(event),
            Err(error) => {
                wrong = Some(error);
                false
            }
        }
    };
    let refused = client.events(path, read).await.map_err(|error| anyhow!("{error}"))?;
    if let Some(response) = refused {
        if let Some(refusal) = client.access_refusal(&response) {
            bail!("{refusal}");
        }
        bail!("{}{path}: {}: {}", client.base(), response.status, response.detail());
    }
    match wrong {
        Some(error) => {
            bail!("{}{path} answered in an unknown form ({error}); is it a weir of this version?", client.base())
        }
        None => Ok(()),
    }
}

/// What became of a message, in one line.
fn line(message: &WatchedMessage) -> String {
    let WatchedMessage { topic, map, outcome, payload_bytes, .. } = message;
    let what = match map {
        None => format!("no map takes this topic ({payload_bytes} bytes)"),
        Some(map) if outcome.ignored.contains_key("topic") => format!("map {map}: the topic is ignored"),
        Some(map) => {
            let mut parts = readings(message);
            parts.extend(outcome.errors.iter().map(|error| format!("error: {}: {}", error.reason, error.message)));
            parts.extend(outcome.status.as_ref().map(status));
            parts.extend(ignored(outcome));
            parts.extend(outcome.rebirth.iter().map(|node| format!("rebirth: weir asks {node} for its births")));
            if parts.is_empty() {
                parts.push("nothing".into());
            }
            format!("map {map}: {}", parts.join("; "))
        }
    };
    one_line(&format!("{topic}: {what}"))
}

/// The readings of each device.
fn readings(message: &WatchedMessage) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let of_device = |one: &ShownReading, other: &ShownReading| one.device_id == other.device_id;
    for readings in message.outcome.readings.chunk_by(of_device) {
        let values: Vec<String> = readings
            .iter()
            .map(|ShownReading { metric, value, unit, .. }| match unit {
                Some(unit) => format!("{metric}={value} {unit}"),
                None => format!("{metric}={value}"),
            })
            .collect();
        let device = readings.first().map_or("", |reading| &reading.device_id);
        parts.push(format!("{device} {}", values.join(", ")));
    }
    if message.readings_left_out > 0 {
        parts.push(format!("{} readings more", message.readings_left_out));
    }
    parts
}
