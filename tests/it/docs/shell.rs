//! A bash that runs the commands of one page one after the other, as a person would type them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::WEIR;

/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Begins the line that the shell prints behind each command.
const MARK: &str = "--- the command ended:";
/// The ports that the pages use.
const PORTS: [&str; 3] = ["1883", "8080", "8883"];

/// What a command printed, on both outputs.
pub struct Printed {
    pub text: String,
    /// Every command of the text returned 0.
    pub succeeded: bool,
}

/// The shell, its directory, and everything that it started.
///
/// The pages use weir's usual ports. Where the system has network namespaces the shell is in one of its own, so that these
/// ports are free. Elsewhere other ports take their places in every command and in what is shown.
pub struct Shell {
    directory: TempDir,
    child: Child,
    lines: Receiver<String>,
    /// Ports in the order of `PORTS`; empty in a network namespace.
    ports: Vec<String>,
}

impl Shell {
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let home = directory.path().join("home");
        fs::create_dir(&home).expect("a directory");
        let mut command;
        let mut ports = Vec::new();
        if namespaces_work() {
            command = in_namespace("ip link set lo up && exec bash --noprofile --norc");
        } else {
            command = Command::new("bash");
            command.args(["--noprofile", "--norc"]);
            ports = free_ports();
        }
        let binaries = Path::new(WEIR.path).parent().expect("a directory");
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
        command.env_clear().env("PATH", path).env("HOME", &home).env("LANG", "C.UTF-8").env("TERM", "dumb");
        command.env("TMPDIR", directory.path());
        // Test machines may have little disk left.
        command.env("WEIR_JOURNAL__MIN_FREE_DISK", "16MiB");
        for (name, port) in ["WEIR_MQTT__LISTEN", "WEIR_HTTP__LISTEN"].iter().zip(&ports) {
            command.env(name, format!("127.0.0.1:{port}"));
        }
        let (output, both) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::piped()).stdout(both.try_clone().expect("a second end")).stderr(both);
        let child = command.current_dir(&home).process_group(0).spawn().expect("bash can be started");
        // The ends of the pipe that this process has are closed with the command, so that its end is seen.
        drop(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let mut shell = Self { directory, child, lines, ports };
        // A command fails where one of several in a block fails, not only the last.
        shell.write("trap 'failed=yes' ERR\n");
        shell
    }

    fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(text.as_bytes()).expect("bash reads");
    }

    /// The text with this shell's ports.
    pub fn translate(&self, text: &str) -> String {
        PORTS.iter().zip(&self.ports).fold(text.to_owned(), |text, (usual, port)| text.replace(usual, port))
    }

    /// Runs commands and waits until they have ended; those in the background go on.
    ///
    /// # Errors
    ///
    /// When they take too long or end the shell: what they printed.
    pub fn run(&mut self, commands: &str) -> Result<Printed, String> {
        let script = self.directory.path().join("commands.sh");
        fs::write(&script, self.translate(commands)).expect("a file");
        self.write(&format!("failed=; . '{}' </dev/null; printf '\\n{MARK} %s\\n' \"$failed\"\n", script.display()));
        let (start, mut text) = (Instant::now(), String::new());
        loop {
            let line = match self.lines.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return Err(format!("it takes too long; it printed\n{text}")),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the shell ended; it printed\n{text}")),
            };
            if let Some(failed) = line.strip_prefix(MARK) {
                return Ok(Printed { text, succeeded: failed.trim().is_empty() });
            }
            if !is_job_notice(&line) {
                text.push_str(&line);
                text.push('\n');
            }
        }
    }

    /// The newest file of this name below the shell's directory; empty where there is none.
    pub fn file(&self, name: &str) -> String {
        let mut directories = vec![self.directory.path().to_owned()];
        let mut found = Vec::new();
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.ends_with(name) {
                    found.push(path);
                }
            }
        }
        let newest = found.into_iter().max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
        newest.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
    }
}

/// bash says which of its jobs was killed, in its own words in a terminal and in a script: "FILE: line 2: 4711 Killed …".
fn is_job_notice(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let killed = words.iter().position(|word| *word == "Killed");
    killed.and_then(|at| words.get(at.checked_sub(1)?)).is_some_and(|pid| pid.parse::<u32>().is_ok())
}

fn in_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--", "bash", "-c", script]);
    command
}

/// Whether a process may have a network of its own. `WEIR_TEST_NO_NAMESPACE` says no.
fn namespaces_work() -> bool {
    let wanted = std::env::var_os("WEIR_TEST_NO_NAMESPACE").is_none();
    wanted && in_namespace("ip link set lo up").output().is_ok_and(|output| output.status.success())
}

fn free_ports() -> Vec<String> {
    let listeners: Vec<TcpListener> =
        PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port().to_string()).collect()
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Everything that the commands started is in the shell's process group, unless it ended.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
