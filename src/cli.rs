//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use weir::access::tokens::TokenRole;
use weir::client::ApiArguments;
use weir::config::parse_duration;
use weir::simulator;

/// A telemetry appliance in one process: durable MQTT ingest, event-time windows, HTTP and Prometheus.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, max_term_width = 100)]
#[command(after_help = "Without a command, weir runs with ./config.toml if there is one.\n\
    Exit codes: 0 success, 1 failure, 64 usage, 65 bad data, 73 cannot create, 74 disk error, 78 bad config.")]
pub struct Cli {
    /// Configuration file; without it ./config.toml if there is one, else the defaults.
    #[arg(short, long, global = true, value_name = "FILE", env = "WEIR_CONFIG")]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Option<CliCommand>,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run the appliance: MQTT broker, pipeline, HTTP, and the simulator where the config has it on.
    Run,
    /// Read the configuration and print every fault in it.
    Check,
    /// Run a fleet of simulated devices against an MQTT broker.
    Simulate(Box<simulator::SimulateArguments>),
    /// Recompute windows and errors from recorded readings or from a journal.
    Replay(ReplayArguments),
    /// Look into a journal, and repair it.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// List or replay stored errors of a running weir.
    #[command(subcommand)]
    Errors(ErrorsCommand),
    /// Copies of the whole state, each in one file.
    #[command(subcommand)]
    Savepoint(SavepointCommand),
    /// Users that may connect over MQTT, in the file mqtt.auth.users.
    #[command(subcommand)]
    Passwd(PasswdCommand),
    /// Tokens for the HTTP API. A running weir reads the file again on SIGHUP (`systemctl reload weir`).
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask a running weir whether it is healthy; for container health checks.
    Health(HealthArguments),
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// A file with one message per line, or a data directory (or its journal directory).
    ///
    /// In a file each line is one message as a device would publish it; its arrival time is the newest event time in
    /// it and idleness is off, unless the line has a field "arrival" (Unix milliseconds). The end of the file closes
    /// all windows. A journal is replayed with the arrival times it holds.
    #[arg(value_name = "FILE.jsonl|DATA_DIR")]
    pub input: PathBuf,
    /// Directory for windows.jsonl and errors.jsonl.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Read everything and report batches, records and damage. Exit code 65 where there is damage.
    Verify {
        /// Data directory, or one log's directory; default: the config's data directory.
        directory: Option<PathBuf>,
    },
    /// Cut damage out of the logs: what cannot be read is lost, what can be read stays, and weir starts again. Without
    /// --yes it only says what it would do, with exit code 65 while there is damage. The bytes that it cuts out are kept
    /// in the directory `damaged`.
    Repair {
        /// Data directory, or one log's directory; default: the config's data directory.
        directory: Option<PathBuf>,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Print the records as JSON lines.
    Dump {
        /// Data directory, or its journal directory; default: the config's data directory.
        directory: Option<PathBuf>,
        /// Position of the first record to print.
        #[arg(long, default_value_t = 0, value_name = "LSN")]
        from: u64,
        /// Most records to print.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ErrorsCommand {
    /// Print stored errors as JSON lines.
    List(ErrorsArguments),
    /// Process stored errors again, each once, under the settings of now.
    ///
    /// What is rejected again becomes a new error. Errors that come while this runs are not replayed.
    Replay(ErrorsArguments),
}

#[derive(Debug, Args)]
pub struct ErrorsArguments {
    /// Only errors of this reason, such as unknown_device.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only errors of this device.
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Only errors that arrived at this time or later: Unix milliseconds or RFC 3339.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Only errors that arrived before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Most errors to list or replay, oldest first.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Base URL of the HTTP listener; default: the config's http.listen.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub api: ApiArguments,
}

#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// Write one now, and print its path. Works beside a running weir and without one.
    Create {
        /// Base URL of a running weir; default: the one that runs on the config's data directory, if one does.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Show the savepoints of a data directory, newest first. Exit code 65 where one cannot be used.
    List {
        /// Data directory; default: the config's.
        directory: Option<PathBuf>,
    },
    /// Make the config's data directory, which must be empty, one that goes on from a savepoint.
    Restore {
        /// The savepoint.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum PasswdCommand {
    /// Add a user, or give one a new password. The password is asked at the terminal.
    Add(PasswdAddArguments),
    /// Remove a user.
    Remove {
        /// The user.
        name: String,
        /// Users file; default: the config's mqtt.auth.users.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show users and their roles.
    List {
        /// Users file; default: the config's mqtt.auth.users.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct PasswdAddArguments {
    /// The user: one level of a topic, for a device its id.
    pub name: String,
    /// A role of the user; may be given several times. Without one: what the user had, else device.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Read the password from the first line of the standard input.
    #[arg(long, conflicts_with = "generate")]
    pub stdin: bool,
    /// Make a random secret of 192 bits and print it, this once. weir checks such secrets thousands of times faster than
    /// passwords, which matters where many devices connect at once.
    #[arg(long)]
    pub generate: bool,
    /// Users file; default: the config's mqtt.auth.users.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HealthArguments {
    /// Base URL of the HTTP listener; default: the config's http.listen.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Ask /readyz instead of /healthz.
    #[arg(long)]
    pub ready: bool,
    #[command(flatten)]
    pub api: ApiArguments,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, which is stored nowhere.
    Add {
        /// Who it is for: the name in weir's log.
        name: String,
        /// What it allows: read (everything that changes nothing) or operate (savepoints and replays too).
        #[arg(long, value_parser = parse_role, value_name = "read|operate")]
        role: TokenRole,
        /// Time after which it is worth nothing, such as 90d.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        file: TokensFile,
    },
    /// Remove a token.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        file: TokensFile,
    },
    /// Show names, roles and expiries.
    List {
        #[command(flatten)]
        file: TokensFile,
    },
}

#[derive(Debug, Args)]
pub struct TokensFile {
    /// The tokens file; default: the config's http.auth.tokens.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn parse_role(text: &str) -> Result<TokenRole, String> {
    TokenRole::named(text).ok_or_else(|| "give read or operate".to_owned())
}
