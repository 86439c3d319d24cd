//! A fleet of simulated devices that publish over TCP as real devices do, and the verification of weir's results.
//!
//! The content of all messages follows from a seed ([`message`]); the time of sending follows from the clock. Each
//! device is a task with one `rumqttc` connection ([`device`], [`link`]) and records what it sent and what was
//! acknowledged ([`ledger`]). [`verify`] computes the expected windows and errors from these records alone, and
//! compares them with the answers of weir's HTTP API.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::simulator::device::{FleetContext, SimulatedDevice};
use crate::simulator::ledger::DeviceLedger;
use crate::simulator::options::RunLength;

mod arguments;
mod compatible;
pub mod device;
mod family_encoder;
mod family_payload;
pub mod format;
pub mod ledger;
pub mod link;
pub mod message;
pub mod options;
pub mod progress;
pub mod protobuf;
mod sparkplug_payload;
pub mod verify;

pub use arguments::SimulateArguments;
pub use format::DeviceFormat;
pub use options::FleetOptions;
pub use progress::{FleetCounts, FleetProgress};

/// Largest number of connections that are opened at the same time: more could overflow the listener's backlog.
const CONNECTING: usize = 64;
/// Longest wait for the MQTT listener at the start of a run.
const REACHABLE: Duration = Duration::from_secs(10);

/// Why a run could not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// An option is out of its range.
    #[error("{0}")]
    Invalid(String),
    /// Nothing listens at the address.
    #[error("no MQTT listener at {address}: {source}; start weir there, or give --address")]
    Unreachable {
        /// Address of the MQTT listener.
        address: SocketAddr,
        /// The failure of the last attempt.
        source: std::io::Error,
    },
    /// The broker refuses the devices' credentials.
    #[error(
        "{address} does not let the devices in: {reason}; give --user and its password, or let anonymous clients in"
    )]
    Refused {
        /// Address of the MQTT listener.
        address: SocketAddr,
        /// The refusal.
        reason: String,
    },
    /// The HTTP client for the verification cannot be built.
    #[error(transparent)]
    HttpClient(#[from] crate::client::ClientError),
}

/// Result of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetReport {
    /// Counts at the end of the run.
    pub totals: FleetCounts,
    /// Time from the first connection to the end of the last one.
    pub elapsed: Duration,
    /// The messages of each device; empty without [`FleetOptions::record`].
    pub ledgers: Vec<DeviceLedger>,
}

/// Runs a fleet until its length is reached or it is cancelled; then waits up to [`FleetOptions::drain`] for missing
/// acknowledgements.
///
/// # Errors
/// [`SimulatorError`] when an option is wrong, nothing listens at the address, or the broker refuses the devices. A
/// connection that is lost is opened again and counted.
pub async fn run(
    options: FleetOptions,
    cancel: CancellationToken,
    progress: Arc<FleetProgress>,
) -> Result<FleetReport, SimulatorError> {
    options.check()?;
    tokio::select! {
        reached = reach(options.address, REACHABLE) => reached?,
        () = cancel.cancelled() => return Ok(FleetReport::default()),
    }
    // A fleet that ends itself must not cancel its caller.
    let cancel = cancel.child_token();
    let started = Instant::now();
    let end = match options.length {
        RunLength::Time(time) => started.checked_add(time),
        RunLength::Endless | RunLength::Messages(_) => None,
    };
    let devices = options.devices;
    let fleet = Arc::new(FleetContext {
        options,
        end,
        clock: Arc::new(SystemClock),
        connecting: Semaphore::new(CONNECTING),
        cancel,
        progress: Arc::clone(&progress),
        refused: OnceLock::new(),
    });
    let mut running: JoinSet<Option<DeviceLedger>> =
        (0..devices).map(|index| SimulatedDevice::new(Arc::clone(&fleet), index).run()).collect();
    let mut ledgers = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(ledger) => ledgers.extend(ledger),
            // A panic is a defect of the simulator; the other devices continue.
            Err(error) => progress.failed(&error),
        }
    }
    if let Some(reason) = fleet.refused.get() {
        return Err(SimulatorError::Refused { address: fleet.options.address, reason: reason.clone() });
    }
    ledgers.sort_by(|a, b| a.device_id.cmp(&b.device_id));
    Ok(FleetReport { totals: progress.snapshot(), elapsed: started.elapsed(), ledgers })
}

/// Waits until something listens at `address`.
async fn reach(address: SocketAddr, patience: Duration) -> Result<(), SimulatorError> {
    let deadline = Instant::now() + patience;
    loop {
        let attempt = timeout(patience, TcpStream::connect(address)).await;
        let source = match attempt {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => std::io::ErrorKind::TimedOut.into(),
        };
        if Instant::now() >= deadline {
            return Err(SimulatorError::Unreachable { address, source });
        }
        device::pause().await;
    }
}

#[cfg(test)]
mod tests;
