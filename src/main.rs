//! weir's command line: parses, loads the configuration, runs one command, and turns its result into an exit code.

#![forbid(unsafe_code)]

mod app;
mod cli;
mod commands;
mod exit;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, JournalCommand, SavepointCommand};
use weir::config::Config;
use weir::{simulator, telemetry};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the terminal is gone there is nobody to tell.
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
    let command = cli.command.unwrap_or(Command::Run);
    match dispatch(command, config, path.as_deref()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::from(exit::exit_code(&error))
        }
    }
}

/// The file that was named, else ./config.toml where it exists.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new("config.toml").is_file().then(|| PathBuf::from("config.toml")))
}

fn dispatch(command: Command, config: Config, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run => app::run(config, path),
        Command::Check => {
            let name = path.map_or_else(|| "defaults".into(), |path| path.display().to_string());
            let findings = commands::check::check(&config);
            for warning in &findings.warnings {
                eprintln!("{name}: warning: {warning}");
            }
            for fault in &findings.faults {
                eprintln!("{name}: {fault}");
            }
            if !findings.faults.is_empty() {
                return Ok(ExitCode::from(exit::CONFIG));
            }
            println!("{name}: ok");
            Ok(ExitCode::SUCCESS)
        }
        Command::Simulate(arguments) => {
            telemetry::logging::init(&config.log.level, config.log.format)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let verdict = runtime.block_on(simulator::command(*arguments, &config))?;
            print!("{verdict}");
            Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
        }
        Command::Replay(arguments) => {
            telemetry::logging::init(&config.log.level, config.log.format)?;
            let summary = commands::replay::replay(&arguments.input, &arguments.out, config.settings())?;
            println!(
                "{} messages, {} readings: {} windows in {}, {} errors in {}",
                summary.messages,
                summary.readings,
                summary.windows,
                arguments.out.join("windows.jsonl").display(),
                summary.errors,
                arguments.out.join("errors.jsonl").display(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Journal(command) => journal(command, &config),
        Command::Errors(command) => commands::errors::run(&command, &config),
        Command::Savepoint(command) => savepoint(command, &config),
        Command::Passwd(command) => {
            commands::passwd::run(command, &config, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Token(command) => {
            commands::token::run(&command, &config, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Health(arguments) => commands::health::health(&arguments, &config),
    }
}

fn journal(command: JournalCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match command {
        JournalCommand::Verify { directory } => {
            let directory = directory.unwrap_or_else(|| config.node.data_dir.clone());
            let verdict = commands::journal::verify(&directory, &mut out)?;
            out.flush()?;
            Ok(verdict.exit_code())
        }
        JournalCommand::Repair { directory, yes } => {
            let directory = directory.unwrap_or_else(|| config.node.data_dir.clone());
            let repaired = commands::repair::repair(&directory, yes, &config.settings(), &mut out);
            out.flush()?;
            Ok(repaired?.exit_code())
        }
        JournalCommand::Dump { directory, from, limit } => {
            let directory = directory.unwrap_or_else(|| config.node.data_dir.clone());
            commands::journal::dump(&directory, from, limit, &mut out)?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn savepoint(command: SavepointCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        SavepointCommand::Create { url, api } => commands::savepoint::create(config, url.as_deref(), &api, &mut out)?,
        SavepointCommand::List { directory } => {
            let directory = directory.unwrap_or_else(|| config.node.data_dir.clone());
            if !commands::savepoint::list(&directory, &mut out)? {
                return Ok(ExitCode::from(exit::DATA));
            }
        }
        SavepointCommand::Restore { file } => commands::savepoint::restore(config, &file, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}
