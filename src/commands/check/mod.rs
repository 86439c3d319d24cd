//! `weir check`: looks at everything that a start would load and use, and reports every fault at once. Nothing is started
//! and nothing is written.

mod files;
mod machine;
mod service_user;

use std::path::Path;
use std::process::ExitCode;

use weir::config::{CheckReport, ReadConfig, environment};

use crate::app::recorded_settings;
use crate::cli::CheckArguments;
use crate::exit;
use service_user::ServiceUser;

pub use files::file_faults;

/// Prints warnings and faults of the configuration, which was read from `path`, of the files that it names, and of the
/// machine.
///
/// # Errors
/// The user as whom to check is unknown, or this process may not check as this user.
pub fn run(arguments: &CheckArguments, config: &ReadConfig, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let name = config_name(path);
    let (report, changes) = match ServiceUser::of_check(arguments.user.as_deref(), config)? {
        Some(user) => {
            eprintln!("{name}: checked as {user}");
            // The configuration is read again: it is one of the files that the user needs.
            user.run(|| check_all(&ReadConfig::load(path, environment()), &name))?
        }
        None => check_all(config, &name),
    };
    for warning in &report.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    for change in changes {
        eprintln!("{name}: changes with the next start: {change}");
    }
    for fault in &report.faults {
        eprintln!("{fault}");
    }
    if !report.faults.is_empty() {
        return Ok(ExitCode::from(exit::CONFIG));
    }
    println!("{name}: ok");
    Ok(ExitCode::SUCCESS)
}

/// Every fault of a configuration that weir cannot run with, and of the files that it names.
pub fn faults(config: &ReadConfig, path: Option<&Path>) -> Vec<String> {
    with_keys(config, &config_name(path), files::check(config)).faults
}

/// Prints these faults.
pub fn refuse(config: &ReadConfig, path: Option<&Path>) -> ExitCode {
    for fault in faults(config, path) {
        eprintln!("{fault}");
    }
    ExitCode::from(exit::CONFIG)
}

/// The report, and the changes of settings that results depend on, against the last start with this data directory.
fn check_all(config: &ReadConfig, name: &str) -> (CheckReport, Vec<String>) {
    let known = config.config().filter(|_| !config.has_faults());
    (check(config, name), known.map(recorded_settings::changes).unwrap_or_default())
}

fn check(config: &ReadConfig, name: &str) -> CheckReport {
    let mut report = files::check(config);
    machine::check(config, &mut report);
    with_keys(config, name, report)
}

/// The report with the faults of keys and values before those of files and machine.
fn with_keys(config: &ReadConfig, name: &str, report: CheckReport) -> CheckReport {
    let keys = config.faults().0.iter().map(ToString::to_string);
    let faults = keys.chain(report.faults.iter().map(|fault| format!("{name}: {fault}"))).collect();
    CheckReport { faults, warnings: report.warnings }
}

fn config_name(path: Option<&Path>) -> String {
    path.map_or_else(|| "defaults".into(), |path| path.display().to_string())
}
