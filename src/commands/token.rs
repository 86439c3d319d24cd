//! `weir token add`, `remove` and `list`: changes the tokens file of the HTTP API.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use weir::access::tokens::{self, ApiToken, TokenList};
use weir::clock::{Clock as _, SystemClock};
use weir::config::{Config, ConfigErrors};

use crate::cli::{TokenCommand, TokensFile};

/// Runs `weir token add`, `remove` or `list`.
///
/// # Errors
/// The configuration is wrong and no file is named; the tokens file is not named, cannot be read or written, or does not allow the change.
pub fn run(command: &TokenCommand, config: &Result<Config, ConfigErrors>) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    match command {
        TokenCommand::Add { name, role, expires, file } => {
            let path = path(file, config)?;
            let expires_ms = expires.map(expiry_ms).transpose()?;
            let (token, secret) = ApiToken::create(name, *role, expires_ms)?;
            tokens::add(&path, &token)?;
            let until = token.expiry().map(|expiry| format!(" until {expiry}")).unwrap_or_default();
            eprintln!("{name} may {}{until}. This is its token, shown now and never again:", role.as_str());
            writeln!(out, "{secret}")?;
            remind(&path, config);
        }
        TokenCommand::Remove { name, file } => {
            let path = path(file, config)?;
            tokens::remove(&path, name)?;
            writeln!(out, "removed {name} from {}", path.display())?;
            remind(&path, config);
        }
        TokenCommand::List { file } => {
            let path = path(file, config)?;
            list(&TokenList::load(&path)?, &path, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The tokens file. The configuration is needed, and must be right, only if no file is named.
fn path(file: &TokensFile, config: &Result<Config, ConfigErrors>) -> anyhow::Result<PathBuf> {
    let configured = match &file.file {
        Some(file) => return Ok(file.clone()),
        None => &config.as_ref().map_err(Clone::clone)?.http.auth.tokens,
    };
    configured.clone().context("there is no tokens file: name one with --file, or in the config as http.auth.tokens")
}

/// The time of expiry in Unix milliseconds, in whole seconds as the file stores it.
fn expiry_ms(after: Duration) -> anyhow::Result<i64> {
    let after_ms = i64::try_from(after.as_millis()).ok();
    let expires_ms = after_ms.and_then(|ms| SystemClock.now_ms().checked_add(ms));
    // A century is far below the end of the range of times.
    let expires_ms = expires_ms.filter(|_| after.as_secs() <= 36_500 * 86_400);
    Ok(expires_ms.context("--expires is too long; leave it out for a token that does not expire")? / 1_000 * 1_000)
}

/// Prints what else is needed before the change takes effect.
fn remind(path: &Path, config: &Result<Config, ConfigErrors>) {
    match config {
        Ok(config) if config.http.auth.tokens.as_deref() == Some(path) => {
            eprintln!("A running weir takes it on SIGHUP (systemctl reload weir).");
        }
        Ok(_) => eprintln!("The config does not name {} in http.auth.tokens: weir does not use it.", path.display()),
        Err(_) => eprintln!("The config has faults (weir check): a weir that names this file takes it on SIGHUP."),
    }
}

fn list(tokens: &TokenList, path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    if tokens.tokens().is_empty() {
        return Ok(writeln!(out, "no tokens in {}", path.display())?);
    }
    writeln!(out, "{:<24} {:<8} expires", "name", "role")?;
    let now_ms = SystemClock.now_ms();
    for token in tokens.tokens() {
        let expires = match token.expiry() {
            None => "never".to_owned(),
            Some(expiry) if token.is_expired(now_ms) => format!("{expiry} (expired)"),
            Some(expiry) => expiry,
        };
        writeln!(out, "{:<24} {:<8} {expires}", token.name, token.role.as_str())?;
    }
    Ok(())
}
