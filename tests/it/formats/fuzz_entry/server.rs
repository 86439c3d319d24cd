//! A weir that serves HTTP and MQTT over WebSocket, for all inputs of a process: its parts on a simulated disk.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir::access::http_access::{HttpAccess, HttpPolicy};
use weir::access::{Access, Policy};
use weir::clock::{Clock, SystemClock};
use weir::config::Config;
use weir::core::settings::Settings;
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::http::process_status::{HealthCheck, MqttStatus, ProcessStatus, RecoveryStatus};
use weir::http::{ApiState, HttpResources, HttpServer};
use weir::log::{Log, LogOptions, Lsn};
use weir::mqtt::MqttServer;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::Stop;
use weir::pipeline::savepoints::SavepointPolicy;
use weir::pipeline::start::{PipelineResources, prepare};
use weir::results::feed::EventFeed;
use weir::results::follow::ResultFollower;
use weir::results::log::ResultLogs;
use weir::state::StateError;
use weir::state::checkpoint_store::CheckpointStore;
use weir::state::key_value::KeyValue;
use weir::telemetry::recorder;

use super::log::options;

/// Name of the server's thread. A panic there fails the input: tokio would only end the task.
const THREAD: &str = "fuzzed-server";
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(60);

static PANICKED: AtomicBool = AtomicBool::new(false);
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(start);

/// Sends `bytes` in pieces of this size on a new connection, ends the sending side, and returns everything that was answered.
pub fn answer_to_any(bytes: &[u8], piece: usize) -> Vec<u8> {
    exchange(bytes, piece, true)
}

/// Sends bytes after which the server closes the connection, and returns everything that was answered.
pub fn answer(bytes: &[u8]) -> Vec<u8> {
    exchange(bytes, usize::MAX, false)
}

fn exchange(bytes: &[u8], piece: usize, end: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(*ADDRESS).expect("the server accepts");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    for part in bytes.chunks(piece) {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    if end {
        // The server may have closed the connection, and with a reset: then no answer is left.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock), "no answer and no end: {answer:?}");
    }
    assert!(!PANICKED.load(Ordering::Relaxed), "the server panicked");
    answer
}

fn start() -> SocketAddr {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if thread::current().name() == Some(THREAD) {
            PANICKED.store(true, Ordering::Relaxed);
        }
        before(panic);
    }));
    let (sender, receiver) = mpsc::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mqtt, http) = assemble().await;
            sender.send(http.local_addr()).expect("the first input waits");
            tokio::join!(mqtt.run(CancellationToken::new()), http.run(CancellationToken::new()));
        });
    };
    thread::Builder::new().name(THREAD.to_owned()).spawn(work).expect("a thread");
    receiver.recv().expect("the server starts")
}

async fn assemble() -> (MqttServer, HttpServer) {
    let metrics = recorder::install();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    (config.mqtt.listen, config.http.listen) = (any, any);
    config.mqtt.max_packet_size_bytes = 4_096;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let open = |name: &'static str| {
        let options = LogOptions { name, dir: Path::new("/").join(name), ..options() };
        Log::open(disk.clone(), clock.clone(), options, Lsn(0)).expect("an empty disk holds a log").0
    };
    let (journal, windows, errors) = (open("journal"), open("windows"), open("errors"));
    let pipeline = run_pipeline(&disk, &clock, [&journal, &windows, &errors]);
    let follower = ResultFollower::new(ResultLogs::new(windows, errors));
    thread::spawn({
        let follower = follower.clone();
        move || follower.run()
    });
    let access = Arc::new(Access::new(Policy::without_users(true)));
    let bound = MqttServer::bind(&config.mqtt, &config.ingest, journal.clone(), access, clock.clone());
    let mqtt = bound.await.expect("a free port");
    let state = ApiState::new(HttpResources {
        config: Arc::new(config.clone()),
        pipeline,
        journal,
        results: follower.results().clone(),
        feed: EventFeed::new(follower),
        process: Arc::new(Healthy),
        metrics,
        mqtt_admission: Some(mqtt.admission()),
        access: HttpAccess::new(HttpPolicy::default(), clock.clone()),
        certificates: Vec::new(),
        clock,
    });
    (mqtt, HttpServer::bind(&config.http, state).await.expect("a free port"))
}

/// Runs a pipeline on a thread of its own, without checkpoints.
fn run_pipeline(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, logs: [&Log; 3]) -> Pipeline {
    let (store, checkpoint) = CheckpointStore::load(Box::new(Empty), "/state".into()).expect("an empty store");
    let [journal, windows, errors] = logs.map(Log::clone);
    let (runner, pipeline) = prepare(PipelineResources {
        journal,
        windows,
        errors,
        store,
        checkpoint,
        settings: Settings::default(),
        checkpoint_interval: Duration::from_secs(1_000_000),
        savepoints: SavepointPolicy {
            directory: "/savepoints".into(),
            interval: None,
            kept: 1,
            max_journal_bytes: u64::MAX,
        },
        disk: disk.clone(),
        clock: clock.clone(),
        threads: false,
        recovered_end: Lsn(0),
    })
    .expect("an empty state");
    thread::spawn(move || runner.run(&Stop::default(), Duration::ZERO).expect("the pipeline runs"));
    pipeline
}

struct Healthy;

impl ProcessStatus for Healthy {
    fn liveness(&self) -> Vec<HealthCheck> {
        Vec::new()
    }
    fn readiness(&self) -> Vec<HealthCheck> {
        Vec::new()
    }
    fn mqtt(&self) -> MqttStatus {
        MqttStatus::default()
    }
    fn recovered(&self) -> Option<RecoveryStatus> {
        None
    }
    fn disk_available_bytes(&self) -> Option<u64> {
        None
    }
}

/// A store that keeps nothing.
#[derive(Debug)]
struct Empty;

impl KeyValue for Empty {
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(None)
    }
    fn put(&self, _values: &[(Vec<u8>, &[u8])]) -> Result<(), StateError> {
        Ok(())
    }
    fn sync(&self) -> Result<(), StateError> {
        Ok(())
    }
    fn disk_bytes(&self) -> Result<u64, StateError> {
        Ok(0)
    }
}
