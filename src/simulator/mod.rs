//! A fleet of devices over real TCP: it uses the same door as real devices, and can say whether what came out is
//! right.
//!
//! Everything that a device says follows from a seed ([`message`]); when it says it follows from the clock. Each
//! device is a task with one `rumqttc` connection ([`device`], [`link`]) and keeps account of what was acknowledged
//! ([`ledger`]). [`verify`] computes from that account alone which windows and errors there must be, and compares
//! them with what weir's HTTP API shows.

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
pub mod device;
pub mod ledger;
pub mod link;
pub mod message;
pub mod options;
pub mod progress;
pub mod verify;

pub use arguments::SimulateArguments;
pub use options::FleetOptions;
pub use progress::{FleetCounts, FleetProgress};

/// Connections being opened at the same time: a fleet that starts must not overflow the listener's backlog.
const CONNECTING: usize = 64;
/// How long a run waits for the listener to be there.
const REACHABLE: Duration = Duration::from_secs(10);

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// An option is out of its range.
    #[error("{0}")]
    Invalid(String),
    /// Nothing listens there.
    #[error("no MQTT listener at {address}: {source}; start weir there, or give --address")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// The last attempt's failure.
        source: std::io::Error,
    },
    /// The broker does not let the devices in.
    #[error(
        "{address} does not let the devices in: {reason}; give --user and its password, or let anonymous clients in"
    )]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What it said.
        reason: String,
    },
    /// The HTTP API that shall be asked cannot be.
    #[error(transparent)]
    HttpClient(#[from] crate::client::ClientError),
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetReport {
    /// The counts at its end.
    pub totals: FleetCounts,
    /// From the first connection to the end of the last.
    pub elapsed: Duration,
    /// What each device sent, where [`FleetOptions::record`] asked for it.
    pub ledgers: Vec<DeviceLedger>,
}

/// Runs a fleet until its length is reached or it is cancelled; then waits up to [`FleetOptions::drain`] for missing
/// acknowledgements.
///
/// # Errors
/// [`SimulatorError`] when an option is wrong or nothing listens at the address. A connection that is lost later is
/// opened again, and counted.
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
    // The fleet may end itself, and only itself.
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
            // A device that panicked is a defect of the simulator; the others go on.
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
