//! Programs of other projects. `tests/run` installs them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::repository;
use crate::wait::wait_for;

/// A command that runs an installed program.
#[track_caller]
pub fn program(name: &str) -> Command {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Debian has servers in a directory that is not in the path of every user.
    let mut directories = std::env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]);
    let found = directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()));
    Command::new(
        found.unwrap_or_else(|| panic!("{name} is not installed; run tests/run, which installs what the tests need")),
    )
}

#[track_caller]
pub fn succeeded(command: &mut Command) -> Output {
    let output = command.output().expect("it can be started");
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{shown}", output.status);
    output
}

/// Kills a process when it is dropped.
struct ChildProcess(Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The target directory, where `tests/run` installs packages of Python and Node.js.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

pub fn python() -> PathBuf {
    let python = target().join("test-venv/bin/python");
    assert!(python.is_file(), "{} is missing; run tests/run, which installs paho-mqtt there", python.display());
    python
}

/// A Mosquitto on a port of this machine.
pub struct Mosquitto {
    port: u16,
    process: ChildProcess,
    _directory: TempDir,
}

impl Mosquitto {
    /// Starts Mosquitto with these lines in its configuration besides the listener, and waits until it listens.
    pub fn start(configuration: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let file = directory.path().join("mosquitto.conf");
        fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n{configuration}\n"))
            .expect("a file");
        let mut command = program("mosquitto");
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = ChildProcess(command.spawn().expect("it can be started"));
        let mut mosquitto = Self { port, process, _directory: directory };
        mosquitto.wait_listening();
        mosquitto
    }

    fn wait_listening(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        wait_for("Mosquitto listens", || {
            let ended = self.process.0.try_wait().expect("its state can be read");
            assert!(ended.is_none(), "Mosquitto ended: {ended:?}");
            TcpStream::connect(address).ok()
        });
    }

    /// Publishes a message with QoS 1.
    pub fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let mut command = program("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", topic, "-m", payload]);
        succeeded(if retain { command.arg("-r") } else { &mut command });
    }
}

/// A Prometheus that scrapes every second.
pub struct Prometheus {
    address: SocketAddr,
    _process: ChildProcess,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with these scrape configs.
    pub fn start(scrape_configs: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let config = directory.path().join("prometheus.yml");
        fs::write(&config, format!("global:\n  scrape_interval: 1s\n{scrape_configs}")).expect("a config file");
        succeeded(program("promtool").args(["check", "config"]).arg(&config));
        // Prometheus does not tell which port it took for port 0.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let process = program("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        Self { address: free, _process: ChildProcess(process), _directory: directory }
    }

    /// Waits until the query's first result is this value.
    #[track_caller]
    pub fn wait_value(&self, query: &str, expected: &str) {
        let path = format!("/api/v1/query?query={}", query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
        wait_for(&format!("Prometheus has {query}"), || {
            let response = http::try_get(self.address, &path)?;
            // Prometheus answers with text until it is ready.
            let answer: Value = serde_json::from_slice(&response.body).ok()?;
            (answer["data"]["result"][0]["value"][1] == expected).then_some(())
        });
    }
}
