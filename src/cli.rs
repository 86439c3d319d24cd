//! The command line: commands, options and their help texts. `main` dispatches to `app` and `commands`, which do the
//! work.

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
    /// Run the appliance: MQTT broker, pipeline, HTTP API, and the simulator if the configuration enables it.
    Run,
    /// Check the configuration, the files it names and the data directory, and print every fault.
    Check(CheckArguments),
    /// Run a fleet of simulated devices against an MQTT broker.
    Simulate(Box<simulator::SimulateArguments>),
    /// Recompute windows and errors from recorded readings or from a journal.
    Replay(ReplayArguments),
    /// Inspect and repair a journal.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// List the devices of a running weir, and forget devices that are gone.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// List topics that clients publish on and that are no ingest topics, with what could be done about each.
    Topics(TopicsArguments),
    /// List, show and try maps, which turn what devices publish into readings.
    Maps(MapsArguments),
    /// List or replay stored errors of a running weir.
    #[command(subcommand)]
    Errors(ErrorsCommand),
    /// Create, list and restore savepoints: copies of the whole state, one file each.
    #[command(subcommand)]
    Savepoint(SavepointCommand),
    /// Manage the users that may connect over MQTT, in the file mqtt.auth.users.
    #[command(subcommand)]
    Passwd(PasswdCommand),
    /// Manage tokens for the HTTP API. A running weir reads the file again on SIGHUP (`systemctl reload weir`).
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask a running weir whether it is healthy; for container health checks.
    Health(HealthArguments),
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Check with the rights of this user: a name, or UID:GID. Only root can check as another user [default: for root the
    /// owner of node.data_dir, else the user who runs the command].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// A file with one message per line, or a data directory, or a journal directory.
    ///
    /// Each line of a file is one message as a device would publish it. Its arrival time is the field "arrival" (Unix
    /// milliseconds). A line without this field arrives at its newest event time, and a file without this field is
    /// processed without idle timeouts. The end of the file closes all windows. A journal is replayed with the arrival
    /// times it holds.
    #[arg(value_name = "FILE.jsonl|DATA_DIR")]
    pub input: PathBuf,
    /// Directory to write windows.jsonl and errors.jsonl to.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Read a data directory's logs and report batches, records and damage. The exit code is 65 if there is damage.
    Verify {
        /// Data directory, or the directory of one log [default: node.data_dir of the config].
        directory: Option<PathBuf>,
    },
    /// Cut damaged bytes out of the logs, so that weir can start again.
    ///
    /// Records that cannot be read are lost; all other records stay. The damaged bytes are kept in the directory
    /// `damaged`. Without --yes nothing is changed: the command prints its plan, and the exit code is 65 if there is
    /// damage.
    Repair {
        /// Data directory, or the directory of one log [default: node.data_dir of the config].
        directory: Option<PathBuf>,
        /// Change the logs.
        #[arg(long)]
        yes: bool,
    },
    /// Print the records as JSON lines.
    Dump {
        /// Data directory, or journal directory [default: node.data_dir of the config].
        directory: Option<PathBuf>,
        /// Position of the first record to print.
        #[arg(long, default_value_t = 0, value_name = "LSN")]
        from: u64,
        /// Print at most this many records.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Print devices with the user that introduced them, the times of their first and last message, and the number of
    /// their metrics.
    List(DeviceListArguments),
    /// Forget devices: their state and their places below limits.devices. Their open windows close first.
    ///
    /// Stored results stay. A message of a forgotten device makes it a new device: sequence numbers that it had sent are
    /// not remembered.
    Forget(DeviceForgetArguments),
}

#[derive(Debug, Args)]
pub struct DeviceListArguments {
    /// The newest devices first [default: in order of id].
    #[arg(long, conflicts_with = "silent")]
    pub new: bool,
    /// The devices first that were silent longest.
    #[arg(long)]
    pub silent: bool,
    /// Print at most this many devices [default: 100 with --new or --silent, else all].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub choice: DeviceChoice,
    #[command(flatten)]
    pub api: DeviceApi,
}

#[derive(Debug, Args)]
pub struct TopicsArguments {
    /// Also print topics that somebody subscribes to and that are like no ingest topic.
    #[arg(long)]
    pub all: bool,
    /// Print at most this many topics, the most frequent ones.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    #[command(flatten)]
    pub api: DeviceApi,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct MapsArguments {
    /// Without a command, print all maps that the configuration knows, with their states and topics.
    #[command(subcommand)]
    pub command: Option<MapsCommand>,
}

#[derive(Debug, Subcommand)]
pub enum MapsCommand {
    /// Print the file of a preset, whose comments say how to use it, or a map of the configuration with the keys of its preset.
    Show {
        /// Name of a map, or of a family of devices.
        name: String,
    },
    /// Print what the maps make of messages: readings, what is ignored, errors, and which device is online.
    ///
    /// Each line of the file is a JSON object with "topic" and "payload" (text, or JSON as it stands) or "payload_base64". With
    /// "expect" (readings), "error" (reasons) and "status" a line says what the message must give; the exit code is 1 if a message
    /// gives something else. "map" names the map that takes the message, and "options" are other values for keys of the map.
    /// The lines are one session, in their order.
    Test {
        /// A file of messages, or - for standard input.
        #[arg(value_name = "FILE.jsonl|-")]
        file: PathBuf,
        /// Try this map alone, whether it is on or not.
        #[arg(long, value_name = "NAME")]
        map: Option<String>,
    },
    /// Print what the maps of a running weir make of messages, one line for each message, as they come.
    ///
    /// Messages on topics that no map takes are shown too; those on ingest.telemetry_topics are not. A view shows 1,000 messages
    /// a second at most, and says how many it left out.
    Watch(WatchArguments),
    /// Write a map for the messages on a topic: what came on it for a while, or those of a file.
    ///
    /// The map is printed as a part of the configuration, and is proved on the messages: `weir maps test` gives the same.
    Suggest(SuggestArguments),
}

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Only messages that this map takes.
    #[arg(long, value_name = "NAME")]
    pub map: Option<String>,
    /// Only messages on topics that match this filter.
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,
    /// Print JSON lines, with the payload.
    #[arg(long)]
    pub json: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    #[command(flatten)]
    pub api: DeviceApi,
}

#[derive(Debug, Args)]
pub struct SuggestArguments {
    /// A topic, or a topic filter; a + may stand for the device.
    pub topic: String,
    /// Take the messages of this file, in the form of `weir maps test`.
    #[arg(long, value_name = "FILE.jsonl")]
    pub file: Option<PathBuf>,
    /// Wait this many seconds for messages.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 30)]
    pub seconds: u64,
    /// Look at this many messages at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub count: usize,
    #[command(flatten)]
    pub api: DeviceApi,
}

#[derive(Debug, Args)]
pub struct DeviceForgetArguments {
    /// Ids of the devices.
    #[arg(value_name = "ID", required_unless_present_any = ["user", "anonymous", "silent_for"])]
    #[arg(conflicts_with_all = ["user", "anonymous", "silent_for"])]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub choice: DeviceChoice,
    #[command(flatten)]
    pub api: DeviceApi,
}

#[derive(Debug, Args)]
pub struct DeviceChoice {
    /// Only devices that this user introduced.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only devices that an anonymous client introduced, or of which it is not known.
    #[arg(long, conflicts_with = "user")]
    pub anonymous: bool,
    /// Only devices without a message for this time, such as 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub silent_for: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct DeviceApi {
    /// Base URL of the HTTP API [default: http.listen of the config].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub access: ApiArguments,
}

#[derive(Debug, Subcommand)]
pub enum ErrorsCommand {
    /// Print stored errors as JSON lines.
    List(ErrorsArguments),
    /// Process stored errors again, each once, with the current settings.
    ///
    /// A reading that is rejected again becomes a new error. Errors that are stored while this runs are not replayed.
    Replay(ErrorsArguments),
}

#[derive(Debug, Args)]
pub struct ErrorsArguments {
    /// Only errors with this reason, such as unknown_device.
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
    /// List or replay at most this many errors, oldest first.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Base URL of the HTTP API [default: http.listen of the config].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub api: ApiArguments,
}

#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// Write a savepoint and print its path. Works with a running weir and without one.
    Create {
        /// Base URL of a running weir [default: the weir that runs on node.data_dir of the config, if there is one].
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// List the savepoints of a data directory, newest first. The exit code is 65 if one cannot be used.
    List {
        /// Data directory [default: node.data_dir of the config].
        directory: Option<PathBuf>,
    },
    /// Restore a savepoint into the data directory of the config, which must be empty.
    Restore {
        /// The savepoint's file.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum PasswdCommand {
    /// Add a user, or change a user's password. weir asks for the password at the terminal.
    Add(PasswdAddArguments),
    /// Remove a user.
    Remove {
        /// Name of the user.
        name: String,
        /// Users file [default: mqtt.auth.users of the config].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List users and their roles.
    List {
        /// Users file [default: mqtt.auth.users of the config].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct PasswdAddArguments {
    /// Name of the user: one level of a topic. A device's user name is its device id.
    pub name: String,
    /// A role of the user; may be given several times [default: the user's present roles, or device for a new user].
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Read the password from the first line of standard input.
    #[arg(long, conflicts_with = "generate")]
    pub stdin: bool,
    /// Generate a random secret of 192 bits and print it; it is not shown again. weir checks such a secret thousands of
    /// times faster than a password, which matters when many devices connect at once.
    #[arg(long)]
    pub generate: bool,
    /// Users file [default: mqtt.auth.users of the config].
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HealthArguments {
    /// Base URL of the HTTP API [default: http.listen of the config].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Ask /readyz (ready to serve) instead of /healthz (running).
    #[arg(long)]
    pub ready: bool,
    #[command(flatten)]
    pub api: ApiArguments,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print its secret. The secret is not stored and cannot be shown again.
    Add {
        /// Name of the token, which weir's log shows.
        name: String,
        /// Requests that the token allows: read (requests that change nothing), or operate (savepoints and replays
        /// too).
        #[arg(long, value_parser = parse_role, value_name = "read|operate")]
        role: TokenRole,
        /// Time after which the token expires, such as 90d [default: never].
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        file: TokensFile,
    },
    /// Remove a token.
    Remove {
        /// Name of the token.
        name: String,
        #[command(flatten)]
        file: TokensFile,
    },
    /// List names, roles and expiry times.
    List {
        #[command(flatten)]
        file: TokensFile,
    },
}

#[derive(Debug, Args)]
pub struct TokensFile {
    /// Tokens file [default: http.auth.tokens of the config].
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn parse_role(text: &str) -> Result<TokenRole, String> {
    TokenRole::named(text).ok_or_else(|| "give read or operate".to_owned())
}
