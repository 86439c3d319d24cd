//! The binary: parses the command line, loads the configuration, runs one command, and turns its result into an exit
//! code.

#![forbid(unsafe_code)]

mod app;
mod cli;
mod commands;
mod exit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, CliCommand};
use weir::config::Config;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A terminal that is gone cannot show the message.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let path = config_path(cli.config);
    let config = match Config::load(path.as_deref(), weir::config::environment()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    let command = cli.command.unwrap_or(CliCommand::Run);
    match dispatch(command, config, path.as_deref()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {}", exit::sentence_of(&error));
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// The file named on the command line, else ./config.toml if it exists.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new("config.toml").is_file().then(|| PathBuf::from("config.toml")))
}

fn dispatch(command: CliCommand, config: Config, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        CliCommand::Run => app::run(config, path),
        CliCommand::Check => Ok(commands::check::run(&config, path)),
        CliCommand::Simulate(arguments) => commands::simulate::run(*arguments, &config),
        CliCommand::Replay(arguments) => commands::replay::run(&arguments, &config),
        CliCommand::Journal(command) => commands::journal::run(command, &config),
        CliCommand::Device(command) => commands::device::run(&command, &config),
        CliCommand::Errors(command) => commands::errors::run(&command, &config),
        CliCommand::Savepoint(command) => commands::savepoint::run(command, &config),
        CliCommand::Passwd(command) => commands::passwd::run(command, &config),
        CliCommand::Token(command) => commands::token::run(&command, &config),
        CliCommand::Health(arguments) => commands::health::run(&arguments, &config),
    }
}
