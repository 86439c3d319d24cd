//! `weir passwd add`, `remove` and `list`: changes the users file of MQTT.

mod file;
mod terminal;

use std::io::{self, BufRead as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use weir::access::{Acl, Password, ROLE_FORM, StoredPassword, USER_FORM, is_role, is_user};
use weir::config::{Config, ConfigErrors};

use crate::cli::{PasswdAddArguments, PasswdCommand};
use file::UsersFile;

/// Longest password that MQTT can carry.
const MAX_PASSWORD_BYTES: usize = 65_535;

/// Runs `weir passwd add`, `remove` or `list`.
///
/// # Errors
/// The configuration is wrong and no file is named; the users file is not named, cannot be read or written, or does not allow the change; or no password is given.
pub fn run(command: PasswdCommand, config: &Result<Config, ConfigErrors>) -> anyhow::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    match command {
        PasswdCommand::Add(arguments) => add(&arguments, config, out)?,
        PasswdCommand::Remove { name, file } => {
            let path = path(file, config)?;
            let mut users = UsersFile::open(&path)?;
            if !users.remove(&name) {
                bail!("{}: there is no user {name:?}; `weir passwd list` shows the users", path.display());
            }
            users.save()?;
            done(out, &format!("user {name} is removed"), &path)?;
        }
        PasswdCommand::List { file } => {
            for (name, roles) in UsersFile::open(&path(file, config)?)?.list() {
                writeln!(out, "{name}\t{}", roles.join(","))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(
    arguments: &PasswdAddArguments,
    config: &Result<Config, ConfigErrors>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let name = &arguments.name;
    if !is_user(name) {
        bail!("{name:?} cannot be a user name; expected {USER_FORM}");
    }
    if let Some(role) = arguments.roles.iter().find(|role| !is_role(role)) {
        bail!("{role:?} cannot be a role; expected {ROLE_FORM}");
    }
    // Another file than the configured one may belong to a weir with other roles.
    if arguments.file.is_none() {
        check_roles(&arguments.roles, config.as_ref().map_err(Clone::clone)?)?;
    }
    let path = path(arguments.file.clone(), config)?;
    let mut users = UsersFile::open(&path)?;
    let (password, stored) = if arguments.generate {
        let secret = Password::generate()?;
        let stored = StoredPassword::of_generated(&secret);
        (Some(secret), stored)
    } else {
        let password = if arguments.stdin { from_stdin()? } else { terminal::ask_twice(name)? };
        (None, StoredPassword::hash(&password)?)
    };
    let new = users.set(name, &arguments.roles, &stored);
    users.save()?;
    // The secret is shown after it is stored: a secret that was shown must work.
    if let Some(secret) = password {
        out.write_all(secret.as_bytes())?;
        writeln!(out)?;
    }
    done(out, &format!("user {name} {}", if new { "is added" } else { "has a new password" }), &path)
}

/// Refuses roles that the ACL file does not define: weir would refuse the users file.
fn check_roles(roles: &[String], config: &Config) -> anyhow::Result<()> {
    let acl = config.mqtt.auth.acl.as_deref().map(Acl::load).transpose().map_err(ConfigErrors)?.unwrap_or_default();
    if let Some(role) = roles.iter().find(|role| !acl.has_role(role)) {
        let known = acl.role_names().collect::<Vec<_>>().join(", ");
        bail!("there is no role {role:?}; expected one of {known}, or define it in the ACL file (mqtt.auth.acl) first");
    }
    Ok(())
}

/// Reports the change on standard error: standard output may hold a secret that a script reads.
fn done(out: &mut impl Write, what: &str, path: &Path) -> anyhow::Result<()> {
    out.flush()?;
    writeln!(io::stderr(), "{}: {what}; a running weir reads the file on SIGHUP", path.display())?;
    Ok(())
}

/// The users file. The configuration is needed, and must be right, only if no file is named.
fn path(file: Option<PathBuf>, config: &Result<Config, ConfigErrors>) -> anyhow::Result<PathBuf> {
    let configured = match file {
        Some(file) => return Ok(file),
        None => &config.as_ref().map_err(Clone::clone)?.mqtt.auth.users,
    };
    configured.clone().context("no users file: set mqtt.auth.users in the config, or use --file")
}

/// The first line of standard input, without its line end.
fn from_stdin() -> anyhow::Result<Password> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    io::stdin().lock().read_until(b'\n', &mut line).context("cannot read the password from standard input")?;
    let mut bytes = line.as_slice();
    bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    checked(bytes)
}

fn checked(bytes: &[u8]) -> anyhow::Result<Password> {
    match bytes.len() {
        0 => bail!("the password is empty"),
        1..=MAX_PASSWORD_BYTES => Ok(Password::new(bytes)),
        length => bail!("the password has {length} bytes; MQTT allows at most {MAX_PASSWORD_BYTES}"),
    }
}
