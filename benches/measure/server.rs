//! A weir process with a data directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::times::Times;

/// How long weir may take for whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(120);
/// Pause between two looks: short beside what is measured, long enough to leave weir the cores.
const PAUSE: Duration = Duration::from_millis(1);
/// Writes of the bare disk that publishes are compared with.
const BARE_SYNCS: usize = 2_000;
/// About what the journal writes for one publish.
const BARE_BYTES: [u8; 220] = [7; 220];

/// A running weir, or its data directory between two runs.
pub struct Server {
    directory: TempDir,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    started: Instant,
    mqtt: SocketAddr,
    http: SocketAddr,
}

/// Resident memory in bytes.
pub struct Memory {
    pub now: u64,
    /// The most since the start, or since [`Server::forget_peak`].
    pub peak: u64,
}

impl Server {
    /// An empty data directory on the disk of the build directory (the one for temporary files is often memory).
    /// Settings are `(key, value)`; all others but addresses and simulator are weir's defaults.
    pub fn prepare(settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let base = [("mqtt.listen", "127.0.0.1:0"), ("http.listen", "127.0.0.1:0"), ("simulator.enabled", "false")];
        let variable = |key: &str| format!("WEIR_{}", key.to_uppercase().replace('.', "__"));
        let environment =
            base.iter().chain(settings).map(|(key, value)| (variable(key), (*value).to_owned())).collect();
        Self { directory, environment, process: None }
    }

    /// A weir with its defaults on an empty directory.
    pub fn start() -> Self {
        let mut server = Self::prepare(&[]);
        server.spawn();
        server.wait("weir is ready", Self::is_ready);
        server
    }

    /// Starts weir and waits until it listens.
    pub fn spawn(&mut self) {
        let output = File::options().create(true).append(true).open(self.path("output.log")).expect("a file");
        let started = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("run")
            .current_dir(self.directory.path())
            .env("WEIR_NODE__DATA_DIR", self.data())
            .envs(self.environment.iter().cloned())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .expect("weir starts");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let pid = u64::from(child.id());
        self.process = Some(Process { child, started, mqtt: nowhere, http: nowhere });
        let addresses = self.wait_for("weir listens", |server| {
            let text = fs::read_to_string(server.data().join("addresses.json")).ok()?;
            let addresses: Value = serde_json::from_str(&text).ok()?;
            (addresses["pid"].as_u64() == Some(pid)).then_some(addresses)
        });
        let address = |name: &str| addresses[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let process = self.process.as_mut().expect("it was started");
        (process.mqtt, process.http) = (address("mqtt"), address("http"));
    }

    /// Looks until `condition` gives a value; panics where weir ends or the deadline passes.
    pub fn wait_for<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            let ended = self.process.as_mut().expect("it runs").child.try_wait().expect("its state can be read");
            assert!(ended.is_none(), "weir ended: {ended:?}");
            assert!(since.elapsed() < DEADLINE, "gave up waiting: {what}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Looks until `condition` holds.
    pub fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.wait_for(what, |server| condition(server).then_some(()));
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.child.kill().expect("it can be killed");
        process.child.wait().expect("it ends");
    }

    /// SIGTERM, and the end in order.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process.child), Signal::TERM).expect("it can be signalled");
        let status = process.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "exit code after SIGTERM");
    }

    /// Time since the process was started.
    pub fn running(&self) -> Duration {
        self.process().started.elapsed()
    }

    pub fn mqtt(&self) -> SocketAddr {
        self.process().mqtt
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Status and body of a GET.
    fn get(&self, path: &str) -> (u16, String) {
        let address = self.process().http;
        let mut stream = TcpStream::connect(address).expect("HTTP answers");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        // The answer to a request of HTTP 1.0 is never chunked, and its end is that of the connection.
        let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// Whether everything found at start is processed.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").0 == 200
    }

    /// The JSON of a path that must answer 200.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).expect("a JSON body")
    }

    /// A metric with exactly these labels, or without; 0 where it has no value yet.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    fn of_proc(&self, file: &str, field: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.process().child.id());
        let text = fs::read_to_string(path).expect("Linux tells about its processes");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().nth(1)?.parse().ok());
        value.unwrap_or_else(|| panic!("/proc has no {field}"))
    }

    pub fn memory(&self) -> Memory {
        let bytes = |field| self.of_proc("status", field) * 1024;
        Memory { now: bytes("VmRSS"), peak: bytes("VmHWM") }
    }

    /// [`Memory::peak`] begins anew.
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.process().child.id());
        fs::write(path, "5").expect("Linux forgets the peak");
    }

    /// Bytes of whole pages that the kernel has written, or will, for this process: what the disk sees.
    pub fn disk_bytes(&self) -> u64 {
        self.of_proc("io", "write_bytes")
    }

    /// Times of a bare write and `fdatasync` on the same disk.
    pub fn bare_syncs(&self) -> Times {
        bare_syncs(&self.path("bare"))
    }
}

fn bare_syncs(path: &Path) -> Times {
    let mut file = File::create(path).expect("a file");
    let one = || {
        let started = Instant::now();
        file.write_all(&BARE_BYTES).expect("a write");
        file.sync_data().expect("a sync");
        started.elapsed()
    };
    Times::of(std::iter::repeat_with(one).take(BARE_SYNCS).collect())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        if std::thread::panicking() {
            let output = fs::read_to_string(self.path("output.log")).unwrap_or_default();
            eprintln!("--- what weir logged ---\n{output}------------------------");
        }
    }
}
