//! `weir maps test`: what maps make of the messages of a file.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Map, Value};

use weir::clock::{Clock as _, SystemClock};
use weir::config::{Config, MapState};
use weir::core::formats::{MapMemory, MapRole, MapSettings, MappedOutcome, Maps};
use weir::mqtt::filter_matches;

use super::message::{TrialMessage, open};
use super::outcome::{differences, lines, one_line};
use crate::exit;

/// Longest line of a file, as long as the longest MQTT packet.
const MAX_LINE_BYTES: u64 = 256 * 1024 * 1024;

/// Counts of a finished trial.
#[derive(Debug, Default)]
struct TrialSummary {
    messages: usize,
    readings: usize,
    errors: usize,
    differ: usize,
}

/// Maps with what they remember of the messages before.
struct MapSet {
    /// The maps that lines have asked for.
    choice: TrialChoice,
    /// The options of these lines.
    options: Map<String, Value>,
    settings: Vec<MapSettings>,
    maps: Maps,
    memory: MapMemory,
}

/// Which maps a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TrialChoice {
    /// The map with this name.
    Named(String),
    /// Those that are on.
    On,
    /// Those that are on, and those that only a name switches on.
    Optional,
}

/// The maps on which the messages of a file are tried.
struct MapTrial<'a> {
    config: &'a Config,
    /// The map that takes all messages, whatever their topic selects.
    only: Option<&'a str>,
    /// Sets of maps that lines have asked for, with the options of these lines.
    sets: Vec<MapSet>,
    summary: TrialSummary,
}

/// Prints what maps make of the messages of a file, and what differs from what is expected.
///
/// # Errors
/// The file cannot be read.
pub fn run(file: &Path, only: Option<&str>, config: &Config) -> anyhow::Result<ExitCode> {
    let mut trial = MapTrial { config, only, sets: Vec::new(), summary: TrialSummary::default() };
    let mut reader = open(file)?;
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line);
        if read.with_context(|| format!("{}, line {number}", file.display()))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        if let Err(error) = trial.line(number, &line) {
            eprintln!("weir: {}, line {number}: {}", file.display(), exit::sentence_of(&error));
            return Ok(ExitCode::from(exit::DATA));
        }
    }
    let TrialSummary { messages, readings, errors, differ } = trial.summary;
    println!("{messages} messages, {readings} readings, {errors} errors, {differ} differ from what is expected");
    Ok(ExitCode::from(if differ > 0 { exit::FAILURE } else { 0 }))
}

impl MapTrial<'_> {
    fn line(&mut self, number: usize, line: &str) -> anyhow::Result<()> {
        let message = TrialMessage::read(line)?;
        let payload = message.payload()?;
        let set = self.set(&message)?;
        let is_off = set.choice == TrialChoice::Optional;
        let arrival_ms = SystemClock.now_ms();
        let found = set.maps.find(&message.topic);
        let name = found.and_then(|found| set.settings.get(usize::from(found.map))).map(|map| map.name.clone());
        let outcome = match found {
            None => MappedOutcome::default(),
            Some(found) if found.role == MapRole::Ignore => MappedOutcome::ignored_topic(),
            Some(found) => set.maps.show(found, &message.topic, &payload, arrival_ms, &mut set.memory),
        };
        let differences = differences(&outcome, &message, arrival_ms);
        self.summary.messages += 1;
        self.summary.readings += outcome.readings.len();
        self.summary.errors += outcome.errors.len();
        self.summary.differ += usize::from(!differences.is_empty());
        let is_native =
            self.config.ingest.telemetry_topics.iter().any(|pattern| filter_matches(pattern, &message.topic));
        let taken = match name {
            _ if is_native && message.map.is_none() => {
                "no map is asked, the topic is one of ingest.telemetry_topics".into()
            }
            Some(name) if is_off => {
                format!("map {name}, which is not on: ingest.presets = [\"auto\", \"{name}\"] switches it on")
            }
            Some(name) => format!("map {name}"),
            None => "no map takes this topic".to_owned(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{number}: {}: {taken}", one_line(&message.topic))?;
        for line in lines(&outcome).iter().chain(&differences) {
            writeln!(out, "  {}", one_line(line))?;
        }
        Ok(())
    }

    /// The maps for a message: those that are on, or the one that the line or the command names, with the options of the line. Where
    /// none that is on takes the topic, a map that only a name switches on may.
    fn set(&mut self, message: &TrialMessage) -> anyhow::Result<&mut MapSet> {
        let named = message.map.clone().or_else(|| self.only.map(str::to_owned));
        let choice = named.map_or(TrialChoice::On, TrialChoice::Named);
        let mut index = self.index(&choice, message)?;
        let takes = |set: &MapSet| set.maps.find(&message.topic).is_some();
        if choice == TrialChoice::On && message.options.is_empty() && !self.sets.get(index).is_some_and(takes) {
            // Maps of the configuration may be at odds with those that are not on.
            let other = self.index(&TrialChoice::Optional, message).ok();
            index = other.filter(|other| self.sets.get(*other).is_some_and(takes)).unwrap_or(index);
        }
        self.sets.get_mut(index).context("a set of maps")
    }

    fn index(&mut self, choice: &TrialChoice, message: &TrialMessage) -> anyhow::Result<usize> {
        let is_wanted = |set: &MapSet| set.choice == *choice && set.options == message.options;
        if let Some(index) = self.sets.iter().position(is_wanted) {
            return Ok(index);
        }
        let set = self.new_set(choice.clone(), &message.topic, &message.options)?;
        self.sets.push(set);
        Ok(self.sets.len() - 1)
    }

    fn new_set(&self, choice: TrialChoice, topic: &str, options: &Map<String, Value>) -> anyhow::Result<MapSet> {
        let known = &self.config.ingest.maps;
        let of_state = |states: &[MapState]| {
            let found = known.iter().filter(|map| states.contains(&map.state));
            found.map(|map| map.settings.clone()).collect()
        };
        let mut settings: Vec<MapSettings> = match &choice {
            TrialChoice::Named(name) => {
                let map = known.iter().find(|map| map.settings.name == *name);
                vec![map.with_context(|| format!("there is no map {name:?}; `weir maps` lists them"))?.settings.clone()]
            }
            TrialChoice::On => of_state(&[MapState::On]),
            TrialChoice::Optional => of_state(&[MapState::On, MapState::Optional]),
        };
        if !options.is_empty() {
            let found = compiled(&settings)?.find(topic).context("no map takes the topic, so options have no map")?;
            let map = settings.get_mut(usize::from(found.map)).context("the map of a topic")?;
            *map = with_options(map, options)?;
        }
        let maps = compiled(&settings)?;
        Ok(MapSet { choice, options: options.clone(), settings, maps, memory: MapMemory::default() })
    }
}

fn compiled(settings: &[MapSettings]) -> anyhow::Result<Maps> {
    Maps::new(settings).map_err(|faults| {
        let fault = faults.first().map(|fault| format!("{}: {}", fault.key, fault.message));
        anyhow!("the maps have faults: {}", fault.unwrap_or_default())
    })
}

/// A map with other values for some keys.
fn with_options(map: &MapSettings, options: &Map<String, Value>) -> anyhow::Result<MapSettings> {
    let Value::Object(mut keys) = serde_json::to_value(map)? else { bail!("a map is an object") };
    keys.extend(options.clone());
    serde_json::from_value(Value::Object(keys)).context("options are no keys of a map")
}
