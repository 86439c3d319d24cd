//! Start and end of MQTT: restores sessions and retained messages, then serves clients, and stores both at the end.
//! Also runs the built-in simulator.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use weir::clock::{Clock, SystemClock};
use weir::config::Config;
use weir::core::record;
use weir::core::settings::Settings;
use weir::disk::{Disk, RealDisk};
use weir::log::{AppendError, Log, Lsn, Records};
use weir::mqtt::broker::Broker;
use weir::mqtt::broker::RetainedStore;
use weir::mqtt::broker::SessionStore;
use weir::mqtt::{AdmissionControl, MqttServer};
use weir::simulator;
use weir::state::StateError;

use super::recorded_settings;
use super::shutdown::FailureReporter;

/// Longest time to open and load the stores of retained messages and of sessions.
const RESTORE_LIMIT: Duration = Duration::from_secs(20);

/// Time between two checks whether the journal is synced. The sync usually ends before the stores are open.
const SYNC_POLL: Duration = Duration::from_millis(1);

/// Serves MQTT until `cancel`.
///
/// The first records of this run say that weir was down and which settings apply; they stand in the journal before the
/// first publish. On a full disk no client is served until there is space. `publish_results` is called once, before the
/// first client is served. Where sessions or retained messages cannot be restored although they may be sound, the process
/// ends: `failures` gets the reason, no client is served, and their stores are left as they are.
pub async fn serve(
    server: MqttServer,
    journal: Log,
    config: Arc<Config>,
    publish_results: impl FnOnce(),
    failures: FailureReporter,
    cancel: CancellationToken,
) {
    let journal_end = journal.durable();
    let settings: Settings = config.settings();
    let data_dir = config.node.data_dir.clone();
    let mut start = Records::default();
    start.push_with(record::encode_resumed);
    start.push_with(|out| record::encode_settings(&settings, out));
    let broker = server.broker();
    if let Err(error) = restore(server.admission(), broker.clone(), config, journal_end).await {
        return failures.report(error);
    }
    broker.mark_restored();
    let mut begun = journal.append(&start, None);
    while begun == Err(AppendError::Full) {
        if cancel.run_until_cancelled(poll_fn(|context| journal.poll_room(context))).await.is_none() {
            return;
        }
        begun = journal.append(&start, None);
    }
    // Sessions whose packet identifiers are exact were stored for the journal's end at the last stop. Once clients are
    // served, no crash may leave a journal with that same end, or outdated identifiers would be taken for exact. So the
    // records of this start must be on disk first; on a full disk this waits for space.
    while begun.as_ref().is_ok_and(|end| journal.durable() < *end) {
        if cancel.run_until_cancelled(tokio::time::sleep(SYNC_POLL)).await.is_none() {
            return;
        }
    }
    if let Err(error) = recorded_settings::write(&data_dir, &settings) {
        tracing::warn!("the next start and weir check cannot tell which settings change: {error:#}");
    }
    // Not earlier: sessions that are not restored yet would miss the results.
    publish_results();
    server.run(cancel).await;
    store(broker, journal).await;
}

/// Restores retained messages and sessions while the other parts start. Devices that connect meanwhile are served
/// afterwards.
async fn restore(
    admission: AdmissionControl,
    broker: Arc<Broker>,
    config: Arc<Config>,
    journal_end: Lsn,
) -> anyhow::Result<()> {
    let data_dir = config.node.data_dir.clone();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let retained = tokio::task::spawn_blocking({
        let (disk, clock) = (Arc::clone(&disk), Arc::clone(&clock));
        move || -> Result<(), StateError> {
            broker.keep_retained(RetainedStore::open(&config.node.data_dir, disk, clock, RESTORE_LIMIT)?);
            Ok(())
        }
    });
    let sessions = tokio::task::spawn_blocking(move || -> Result<(), StateError> {
        admission.keep_sessions(SessionStore::open(&data_dir, disk, clock, RESTORE_LIMIT)?, journal_end);
        Ok(())
    });
    let (retained, sessions) = tokio::join!(retained, sessions);
    retained.context("restoring retained messages panicked")?.context("cannot restore retained messages")?;
    sessions.context("restoring MQTT sessions panicked")?.context("cannot restore MQTT sessions")
}

async fn store(broker: Arc<Broker>, journal: Log) {
    let storing = move || {
        broker.sync_retained();
        // Sessions are stored for the journal's end. If the sync fails they are not stored: the next start then forgets
        // packet identifiers, which is safe.
        if let Ok(stopped_at) = journal.sync() {
            broker.sync_sessions(stopped_at);
        }
    };
    if tokio::task::spawn_blocking(storing).await.is_err() {
        tracing::error!("retained messages or sessions could not be stored; please report this defect");
    }
}

/// Runs the built-in simulator, whose devices connect over TCP like real ones. If it fails, real devices are not
/// affected.
pub async fn simulate(
    config: Arc<Config>,
    port: u16,
    progress: Arc<simulator::FleetProgress>,
    cancel: CancellationToken,
) {
    let boot = SystemClock.now_ms().to_string();
    let mut options = simulator::FleetOptions::from_config(&config, boot);
    options.address.set_port(port);
    tracing::info!(devices = options.devices, "the simulator is on (simulator.enabled)");
    if let Err(error) = simulator::run(options, cancel, progress).await {
        tracing::warn!(%error, "the simulator stopped");
    }
}
