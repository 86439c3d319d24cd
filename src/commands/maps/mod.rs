//! `weir maps`: lists and shows maps, and tries them on messages of a file.

mod message;
mod outcome;
mod show;
mod trial;

use std::io::Write as _;
use std::process::ExitCode;

use weir::config::{Config, KnownMap, MapOrigin};

use crate::cli::{MapsArguments, MapsCommand};
use crate::commands::table::table;

/// Runs `weir maps`, `weir maps show` or `weir maps test`.
///
/// # Errors
/// There is no such map, or a file cannot be read.
pub fn run(arguments: &MapsArguments, config: &Config) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        None => list(config),
        Some(MapsCommand::Show { name }) => show::run(name, config),
        Some(MapsCommand::Test { file, map }) => trial::run(file, map.as_deref(), config),
    }
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut rows = vec![["NAME", "STATE", "FROM", "TOPICS"].map(str::to_owned)];
    rows.extend(config.ingest.maps.iter().map(row));
    std::io::stdout().lock().write_all(table(&rows).as_bytes())?;
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
