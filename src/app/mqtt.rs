//! What goes in and out by MQTT: the door opens once what it kept is back, and puts it away when it closes.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

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

/// How long the stores of retained messages and of sessions may take to open and load.
const RESTORE_LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks at how far the journal is synced; it is done when the stores are open, as a rule.
const SYNC_POLL: Duration = Duration::from_millis(1);

/// Nothing was heard while weir was down, and the settings may be others: the journal says so before the first publish,
/// then the door opens. On a full disk it stays closed until there is space.
pub async fn open(
    server: MqttServer,
    journal: Log,
    config: Arc<Config>,
    publish_results: impl FnOnce(),
    cancel: CancellationToken,
) {
    let journal_end = journal.durable();
    let settings: Settings = config.settings();
    let mut start = Records::default();
    start.push_with(record::encode_resumed);
    start.push_with(|out| record::encode_settings(&settings, out));
    let mut begun = journal.append(&start, None);
    while begun == Err(AppendError::Full) {
        if cancel.run_until_cancelled(poll_fn(|context| journal.poll_room(context))).await.is_none() {
            return;
        }
        begun = journal.append(&start, None);
    }
    let broker = server.broker();
    restore(server.admission(), broker.clone(), config, journal_end).await;
    // What is restored as exact holds for the end that the journal had. Once clients are served no crash may find that end
    // again, so this start has to be on disk by now; on a full disk that takes until there is space.
    while begun.as_ref().is_ok_and(|end| journal.durable() < *end) {
        if cancel.run_until_cancelled(tokio::time::sleep(SYNC_POLL)).await.is_none() {
            return;
        }
    }
    // Sessions that are not restored yet would miss them.
    publish_results();
    server.run(cancel).await;
    store(broker, journal).await;
}

/// Retained messages and sessions, beside everything else that starts: devices may connect before, and are served once
/// this is done.
async fn restore(admission: AdmissionControl, broker: Arc<Broker>, config: Arc<Config>, journal_end: Lsn) {
    let data_dir = config.node.data_dir.clone();
    let retained = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        if let Some(store) = RetainedStore::open(&config.node.data_dir, &disk, &SystemClock, RESTORE_LIMIT) {
            broker.keep_retained(store);
        }
    });
    let sessions = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        if let Some(store) = SessionStore::open(&data_dir, &disk, &SystemClock, RESTORE_LIMIT) {
            admission.keep_sessions(store, journal_end);
        }
    });
    if retained.await.is_err() || sessions.await.is_err() {
        tracing::error!("retained messages or sessions could not be restored; please report this defect");
    }
}

async fn store(broker: Arc<Broker>, journal: Log) {
    let storing = move || {
        broker.sync_retained();
        // Without it the journal would end elsewhere at the next start, which is safe and forgets packet identifiers.
        if let Ok(stopped_at) = journal.sync() {
            broker.sync_sessions(stopped_at);
        }
    };
    if tokio::task::spawn_blocking(storing).await.is_err() {
        tracing::error!("retained messages or sessions could not be stored; please report this defect");
    }
}

/// The built-in fleet goes through the same door as real devices. If it fails, devices are not affected.
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
