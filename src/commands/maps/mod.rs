//! `weir maps`: lists and shows maps, tries them on messages, shows what they do, and writes new ones.

mod message;
mod outcome;
mod show;
mod suggest;
mod trial;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use weir::config::{Config, KnownMap, MapOrigin, MapState};

use crate::cli::{MapsArguments, MapsCommand};
use crate::commands::table::table;

/// Runs `weir maps`, or one of its commands.
///
/// # Errors
/// There is no such map, a file cannot be read, or weir does not answer.
pub fn run(arguments: &MapsArguments, config: &Config) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        None => list(config),
        Some(MapsCommand::Show { name }) => show::run(name, config),
        Some(MapsCommand::Test { file, map }) => trial::run(file, map.as_deref(), config),
        Some(MapsCommand::Watch(arguments)) => watch::run(arguments, config),
        Some(MapsCommand::Suggest(arguments)) => suggest::run(arguments, config),
    }
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut rows = vec![["NAME", "STATE", "FROM", "TOPICS"].map(str::to_owned)];
    rows.extend(config.ingest.maps.iter().map(row));
    let mut out = std::io::stdout().lock();
    out.write_all(table(&rows).as_bytes())?;
    if config.ingest.maps.iter().any(|map| map.state == MapState::Optional) {
        writeln!(
            out,
            "optional: its topics may be those of other devices; ingest.presets = [\"auto\", \"NAME\"] switches it on"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(map: &KnownMap) -> [String; 4] {
    let from = match &map.origin {
        MapOrigin::Config => "config".to_owned(),
        MapOrigin::File(file) => file.clone(),
        MapOrigin::Preset(family) => format!("preset {family}"),
    };
    let settings = &map.settings;
    [settings.name.clone(), map.state.as_str().to_owned(), from, settings.topics.join(" ")]
}
