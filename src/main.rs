//! The binary: parses the command line, loads the configuration, runs one command, and turns its result into an exit
//! code.

#![forbid(unsafe_code)]

mod app;
mod cli;
mod commands;
mod exit;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, CliCommand};
use exit::WrongFiles;
use weir::config::{ConfigErrors, ReadConfig};

fn main() -> ExitCode {
    weir::disk::own_files_only();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A terminal that is gone cannot show the message.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let path = config_path(cli.config);
    let command = cli.command.unwrap_or(CliCommand::Run);
    let config = ReadConfig::load(path.as_deref(), weir::config::environment());
    match dispatch(command, config, path.as_deref()) {
        Ok(code) => code,
        Err(error) if is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Each of these is a list of faults, one line each.
            if error.is::<ConfigErrors>() || error.is::<WrongFiles>() {
                eprintln!("{error}");
            } else {
                eprintln!("weir: {}", exit::sentence_of(&error));
            }
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// Whether the program that reads the output ended, as `head` does.
fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The file named on the command line, else ./config.toml if it exists.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new("config.toml").is_file().then(|| PathBuf::from("config.toml")))
}

fn dispatch(command: CliCommand, read: ReadConfig, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        CliCommand::Run if read.has_faults() => Ok(commands::check::refuse(&read, path)),
        CliCommand::Run => app::run(read.into_config()?, path),
        CliCommand::Check(arguments) => commands::check::run(&arguments, &read, path),
        CliCommand::Simulate(arguments) => commands::simulate::run(*arguments, &read.into_config()?),
        CliCommand::Replay(arguments) => commands::replay::run(&arguments, &read.into_config()?),
        CliCommand::Journal(command) => commands::journal::run(command, &read.into_config()?),
        CliCommand::Device(command) => commands::device::run(&command, &read.into_config()?),
        CliCommand::Topics(arguments) => commands::topics::run(&arguments, &read.into_config()?),
        CliCommand::Maps(arguments) => commands::maps::run(&arguments, &read.into_config()?),
        CliCommand::Errors(command) => commands::errors::run(&command, &read.into_config()?),
        CliCommand::Savepoint(command) => commands::savepoint::run(command, &read.into_config()?),
        // With --file these need no configuration, so its faults count only where they use it.
        CliCommand::Passwd(command) => commands::passwd::run(command, &read.into_config()),
        CliCommand::Token(command) => commands::token::run(&command, &read.into_config()),
        CliCommand::Health(arguments) => commands::health::run(&arguments, &read.into_config()?),
    }
}
