//! A weir process with a data directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, TestResponse};
use crate::wait::{wait_closely, wait_for};

/// Settings of every test, unless the test sets others.
const BASE: &[(&str, &str)] = &[
    ("mqtt.listen", "'127.0.0.1:0'"),
    ("http.listen", "'127.0.0.1:0'"),
    // Test machines may have little disk left.
    ("journal.min_free_disk", "'16MiB'"),
];

/// Writes a config file. Later settings override earlier ones; values are TOML.
pub fn write_config(path: &Path, settings: &[(&str, &str)]) {
    let mut text = String::new();
    for (index, (key, value)) in settings.iter().enumerate() {
        if settings[index + 1..].iter().any(|(later, _)| later == key) {
            continue;
        }
        // Dotted keys at the top level need no tables.
        text.push_str(&format!("{key} = {value}\n"));
    }
    fs::write(path, text).expect("a config file can be written");
}

/// The weir that cargo built beside a test binary or bench; made by [`program!`](crate::program).
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Path of the executable.
    pub path: &'static str,
    /// Directory of the build for files that tests make.
    pub scratch: &'static str,
}

/// The [`Program`] for the target that calls this. Cargo names the executable only to integration tests and benches,
/// not to the crates that they use.
#[macro_export]
macro_rules! program {
    () => {
        $crate::process::Program { path: env!("CARGO_BIN_EXE_weir"), scratch: env!("CARGO_TARGET_TMPDIR") }
    };
}

impl Program {
    /// A command with these arguments.
    pub fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path);
        command.args(arguments);
        command
    }

    /// A data directory and a config for a weir that is not started.
    pub fn prepare(self, settings: &[(&str, &str)]) -> Weir {
        self.prepare_in(TempDir::new().expect("a temporary directory"), settings)
    }

    /// A data directory and a config on the disk of the build directory: temporary files are often in memory.
    pub fn prepare_on_disk(self, settings: &[(&str, &str)]) -> Weir {
        self.prepare_in(TempDir::new_in(self.scratch).expect("a temporary directory"), settings)
    }

    fn prepare_in(self, directory: TempDir, settings: &[(&str, &str)]) -> Weir {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let weir = Weir {
            program: self,
            directory,
            environment: Vec::new(),
            child: None,
            started: Instant::now(),
            mqtt: nowhere,
            http: nowhere,
            mqtt_tls: None,
            https: None,
        };
        weir.configure(settings);
        weir
    }

    /// Starts weir with these settings and waits until it is ready.
    pub fn start(self, settings: &[(&str, &str)]) -> Weir {
        let mut weir = self.prepare(settings);
        weir.restart();
        weir
    }

    /// Starts weir with its defaults on the disk of the build directory and waits until it is ready.
    pub fn start_on_disk(self) -> Weir {
        let mut weir = self.prepare_on_disk(&[]);
        weir.restart();
        weir
    }
}

/// A running weir, or its data directory between two runs.
pub struct Weir {
    program: Program,
    directory: TempDir,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    started: Instant,
    mqtt: SocketAddr,
    http: SocketAddr,
    mqtt_tls: Option<SocketAddr>,
    https: Option<SocketAddr>,
}

impl Weir {
    /// Writes the config for the next start.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let data = format!("'{}'", self.data().display());
        let mut all = BASE.to_vec();
        all.push(("node.data_dir", &data));
        all.extend_from_slice(settings);
        write_config(&self.path("config.toml"), &all);
    }

    /// Sets an environment variable of later starts.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts weir on the same directory and waits until it is ready. It gets new ports.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until("weir is ready", Self::is_ready);
    }

    /// Starts weir and waits until it is ready, or has ended: then its exit status is returned.
    pub fn try_restart(&mut self) -> Option<ExitStatus> {
        self.spawn_process();
        wait_closely("weir is ready or ends", || {
            if let Some(status) = self.child.as_mut()?.try_wait().expect("its state can be read") {
                self.child = None;
                return Some(Some(status));
            }
            self.read_addresses().is_some_and(|()| self.is_ready()).then_some(None)
        })
    }

    /// Starts weir and waits until it listens.
    pub fn spawn(&mut self) {
        self.spawn_process();
        wait_closely("addresses.json names this process", || {
            self.assert_running();
            self.read_addresses()
        });
    }

    fn spawn_process(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let log = fs::File::options().create(true).append(true).open(self.path("output.log")).expect("a log file");
        self.started = Instant::now();
        let child = self
            .command(&["run"])
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("weir can be started");
        self.child = Some(child);
    }

    /// Takes the addresses that the running process wrote; `None` until it has.
    fn read_addresses(&mut self) -> Option<()> {
        let pid = u64::from(self.child.as_ref()?.id());
        let text = fs::read_to_string(self.data().join("addresses.json")).ok()?;
        let addresses: Value = serde_json::from_str(&text).ok()?;
        if addresses["pid"].as_u64() != Some(pid) {
            return None;
        }
        let address = |name: &str| addresses[name].as_str().and_then(|text| text.parse().ok());
        (self.mqtt, self.http) = (address("mqtt").expect("an address"), address("http").expect("an address"));
        (self.mqtt_tls, self.https) = (address("mqtt_tls"), address("http_tls"));
        Some(())
    }

    /// `weir ARGUMENTS --config …` with this directory's config.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program.command(arguments);
        command.arg("--config").arg(self.path("config.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.directory.path());
        command
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        http::try_get(self.http, "/readyz").is_some_and(|response| response.status == 200)
    }

    /// Time since the process was started.
    pub fn running(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks every millisecond until `condition` gives a value; panics where weir ends.
    #[track_caller]
    pub fn watch<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        wait_closely(what, || {
            self.assert_running();
            condition(self)
        })
    }

    /// Looks every millisecond until `condition` holds; panics where weir ends.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.watch(what, |weir| condition(weir).then_some(()));
    }

    fn assert_running(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        if let Some(status) = child.try_wait().expect("its state can be read") {
            self.child = None;
            panic!("weir ended: {status}");
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it is running");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it can be signalled");
    }

    /// Waits until the process has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_for("weir ends", || self.child.as_mut()?.try_wait().expect("its state can be read"));
        self.child = None;
        status
    }

    /// Sends SIGTERM and waits for the end; the exit code must be 0.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "exit code after SIGTERM");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it is running"))
    }

    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Address of MQTT over TLS.
    pub fn mqtt_tls(&self) -> SocketAddr {
        self.mqtt_tls.expect("mqtt.tls.listen is set")
    }

    /// Address of HTTP over TLS.
    pub fn https(&self) -> SocketAddr {
        self.https.expect("http.tls.listen is set")
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The log of the process so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.path("output.log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> TestResponse {
        http::get(self.http, path)
    }

    /// The JSON of a path that must answer 200.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        self.get(path).ok().json()
    }

    /// All entries of a list, through all its pages.
    #[track_caller]
    pub fn list(&self, name: &str, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.json(&format!("/api/v1/{name}?limit=1000{query}{cursor}"));
            all.extend(page[name].as_array().expect("a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// The value of a metric without labels, or of the one with exactly these labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").ok().text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("/metrics has no {name}:\n{text}"))
    }

    /// The sum of a metric over all its labels; 0 where it has none.
    #[track_caller]
    pub fn metric_sum(&self, name: &str) -> f64 {
        let text = self.get("/metrics").ok().text();
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// Checks that every reading is accounted for and no replayed result differs.
    #[track_caller]
    pub fn assert_accounted(&self) {
        let unaccounted = self.metric("weir_readings_unaccounted");
        assert!(unaccounted.abs() < f64::EPSILON, "weir_readings_unaccounted is {unaccounted}");
        let mismatches = self.metric_sum("weir_replay_mismatches_total");
        assert!(mismatches.abs() < f64::EPSILON, "weir_replay_mismatches_total is {mismatches}");
    }

    /// Waits until every synced record is processed, no window is open, and all results can be read.
    #[track_caller]
    pub fn wait_closed(&self) {
        wait_for("all windows are closed", || {
            let settled = self.metric("weir_pipeline_backlog_records") + self.metric("weir_windows_open");
            (settled.abs() < f64::EPSILON).then_some(())
        });
        let emitted = self.metric_sum("weir_windows_emitted_total") as u64;
        wait_for("the last window is in the log", || {
            let newest = self.json("/api/v1/windows?revisions=all&order=desc&limit=1");
            let written = newest["windows"][0]["seq"].as_u64().map_or(0, |seq| seq + 1);
            (written >= emitted).then_some(())
        });
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("--- what weir logged ---\n{}------------------------", self.output());
        }
    }
}
