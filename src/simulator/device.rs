//! One simulated device: a task that produces messages, publishes them, loses its connection and reconnects.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::random::Random;
use crate::simulator::ledger::DeviceLedger;
use crate::simulator::link::{BrokerLink, LinkEvent};
use crate::simulator::message::{DeviceMessage, MessageEncoder, MessageGenerator, Publication};
use crate::simulator::options::{FleetOptions, RunLength};
use crate::simulator::progress::FleetProgress;

/// Share of messages after which a device that goes offline at all does so.
const GO_OFFLINE: f64 = 1.0 / 30.0;
/// Number of messages that a device keeps while it is offline: the least, and the largest addition to it.
const BACKLOG_MESSAGES: (u64, u64) = (5, 25);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Context that all devices of a fleet share.
#[derive(Debug)]
pub struct FleetContext {
    /// Options of the fleet.
    pub options: FleetOptions,
    /// End of the run; `None` when it is not limited in time.
    pub end: Option<Instant>,
    /// Wall clock of all devices, before skew.
    pub clock: Arc<dyn Clock>,
    /// Permits to open a connection.
    pub connecting: Semaphore,
    /// Cancelled when devices are to stop producing.
    pub cancel: CancellationToken,
    /// Counts of the fleet.
    pub progress: Arc<FleetProgress>,
    /// The broker's refusal of a device. All devices have the same credentials, so it holds for all.
    pub refused: OnceLock<String>,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum ConnectionEnd {
    /// All messages are sent and acknowledged.
    Finished,
    /// The device goes offline and keeps this many messages.
    Offline(u64),
    /// The connection was dropped, on purpose or not.
    Dropped,
    /// The broker refused the device.
    Refused,
    /// Acknowledgements are missing, and the time to wait for them is over.
    OutOfTime,
}

/// One simulated device.
#[derive(Debug)]
pub struct SimulatedDevice {
    fleet: Arc<FleetContext>,
    id: String,
    random: Random,
    generator: MessageGenerator,
    encoder: MessageEncoder,
    goes_offline: bool,
    next_due: Instant,
    /// Publishes that go out before new messages: unacknowledged ones of an earlier connection, and a backlog. Bounded
    /// by the in-flight limit and the size of one backlog.
    outbox: VecDeque<Publication>,
    /// A publish to repeat after the next message.
    again: Option<Publication>,
    ledger: Option<DeviceLedger>,
    give_up: Option<Instant>,
    connected: bool,
}

impl SimulatedDevice {
    /// The device `index` of the fleet.
    pub fn new(fleet: Arc<FleetContext>, index: usize) -> Self {
        let options = &fleet.options;
        let id = options.device_id(index);
        // Two random generators: the content of messages does not depend on how often the connection was lost.
        let generator = MessageGenerator::new(options, Random::for_member(options.seed, 2 * index as u64));
        let mut random = Random::for_member(options.seed, 2 * index as u64 + 1);
        let phase = options.interval.mul_f64(random.unit());
        Self {
            encoder: MessageEncoder::new(options, &id),
            goes_offline: options.goes_offline(index),
            ledger: options.record.then(|| DeviceLedger::new(&id)),
            next_due: Instant::now() + phase,
            id,
            random,
            generator,
            outbox: VecDeque::new(),
            again: None,
            give_up: None,
            connected: false,
            fleet,
        }
    }

    /// Runs until the end of the fleet. Returns the record of its messages if the options ask for one.
    pub async fn run(mut self) -> Option<DeviceLedger> {
        let mut retry = FIRST_RETRY;
        loop {
            if self.is_done() && self.outbox.is_empty() {
                return self.ledger;
            }
            let ended = self.connection().await;
            if std::mem::take(&mut self.connected) {
                self.fleet.progress.disconnected();
                retry = FIRST_RETRY;
            }
            match ended {
                ConnectionEnd::Finished | ConnectionEnd::OutOfTime | ConnectionEnd::Refused => return self.ledger,
                ConnectionEnd::Offline(messages) => self.stay_away(messages).await,
                ConnectionEnd::Dropped => {
                    let jitter = self.random.unit();
                    let wait = Instant::now() + retry.mul_f64(0.5 + jitter / 2.0);
                    retry = (retry * 2).min(LAST_RETRY);
                    let Some(()) = self.pause_until(wait).await else { return self.ledger };
                }
            }
        }
    }

    /// Waits; `None` when the time to wait for acknowledgements is over.
    async fn pause_until(&mut self, time: Instant) -> Option<()> {
        if self.is_done() {
            let give_up = self.give_up_at();
            sleep_until(time.min(give_up)).await;
            return (Instant::now() < give_up).then_some(());
        }
        let fleet = Arc::clone(&self.fleet);
        tokio::select! {
            () = sleep_until(time) => {}
            () = fleet.cancel.cancelled() => {}
        }
        Some(())
    }

    /// One connection from CONNECT to its end.
    async fn connection(&mut self) -> ConnectionEnd {
        let now_ms = self.fleet.clock.now_ms();
        let will = self.encoder.begin_session(now_ms);
        let mut link = BrokerLink::new(&self.fleet.options, &self.id, will);
        if let Some(greeting) = self.encoder.greeting(now_ms) {
            self.outbox.push_front(greeting);
        }
        let ended = match self.open(&mut link).await {
            None => self.talk(&mut link).await,
            Some(ended) => ended,
        };
        // Unacknowledged publishes go before the outbox: they have lower sequence numbers.
        let mut rest = link.abandon();
        rest.append(&mut self.outbox);
        // The next connection has a greeting of its own.
        rest.retain(Publication::has_messages);
        self.outbox = rest;
        ended
    }

    /// Connects; `None` when it succeeded.
    async fn open(&mut self, link: &mut BrokerLink) -> Option<ConnectionEnd> {
        let fleet = Arc::clone(&self.fleet);
        let give_up = self.is_done().then(|| self.give_up_at());
        let connect = async {
            let _permit = fleet.connecting.acquire().await;
            link.next().await
        };
        tokio::select! {
            event = connect => match event {
                Ok(_) => {
                    self.connected = true;
                    fleet.progress.connected();
                    None
                }
                Err(error) => {
                    fleet.progress.failed(&error);
                    if let ConnectionError::ConnectionRefused(
                        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
                    ) = error
                    {
                        let _ = fleet.refused.set(error.to_string());
                        fleet.cancel.cancel();
                        return Some(ConnectionEnd::Refused);
                    }
                    Some(ConnectionEnd::Dropped)
                }
            },
            () = fleet.cancel.cancelled(), if give_up.is_none() => Some(ConnectionEnd::Dropped),
            () = until(give_up) => Some(ConnectionEnd::OutOfTime),
        }
    }

    /// Publishes until the connection ends.
    async fn talk(&mut self, link: &mut BrokerLink) -> ConnectionEnd {
        let fleet = Arc::clone(&self.fleet);
        let mut leave = None;
        loop {
            self.hand_over(link);
            let done = self.is_done();
            if done && self.outbox.is_empty() && link.is_idle() {
                return farewell(link, self.give_up_at()).await;
            }
            if leave.is_some() && self.outbox.is_empty() && link.all_written() {
                return leave.unwrap_or(ConnectionEnd::Dropped);
            }
            let producing = !done && leave.is_none() && self.outbox.is_empty() && link.has_room();
            let give_up = done.then(|| self.give_up_at());
            tokio::select! {
                event = link.next() => match event {
                    Ok(LinkEvent::Acknowledged(publication)) => self.acknowledged(&publication),
                    Ok(_) => {}
                    Err(error) => {
                        fleet.progress.failed(&error);
                        return ConnectionEnd::Dropped;
                    }
                },
                () = sleep_until(self.next_due), if producing => leave = self.produce(),
                () = until(fleet.end), if !done => {}
                () = fleet.cancel.cancelled(), if !done => {}
                () = until(give_up) => return ConnectionEnd::OutOfTime,
            }
        }
    }

    /// Moves publishes from the outbox to the connection while it has room.
    fn hand_over(&mut self, link: &mut BrokerLink) {
        while link.has_room()
            && let Some(publication) = self.outbox.pop_front()
        {
            let (seqs, readings) = (publication.seqs.clone(), publication.readings);
            let payload = self.encoder.payload_to_send(&publication);
            if let Err(publication) = link.publish(publication, payload) {
                self.outbox.push_front(publication);
                return;
            }
            self.fleet.progress.published(readings);
            if let Some(ledger) = &mut self.ledger {
                ledger.published(&seqs);
            }
        }
    }

    /// Produces the next message. Returns `Some` when the connection is to end after it.
    fn produce(&mut self) -> Option<ConnectionEnd> {
        let message = self.message();
        let publication = self.encoder.encode(&message);
        let options = &self.fleet.options;
        let repeat = self.random.chance(options.redelivery_share).then(|| publication.clone());
        let churn = self.random.chance(options.churn_share);
        let offline = self.random.chance(GO_OFFLINE) && self.goes_offline;
        let backlog = BACKLOG_MESSAGES.0 + self.random.up_to(BACKLOG_MESSAGES.1);
        self.next_due = (self.next_due + options.interval).max(Instant::now());
        self.outbox.push_back(publication);
        self.outbox.extend(self.again.take());
        self.again = repeat;
        if offline { Some(ConnectionEnd::Offline(backlog)) } else { churn.then_some(ConnectionEnd::Dropped) }
    }

    fn message(&mut self) -> DeviceMessage {
        let message = self.generator.next_message(self.fleet.clock.now_ms());
        self.fleet.progress.produced();
        if let Some(ledger) = &mut self.ledger {
            ledger.produced(&message);
        }
        message
    }

    /// Produces messages while offline. They are published after the next CONNECT.
    async fn stay_away(&mut self, messages: u64) {
        let mut backlog = Vec::new();
        for _ in 0..messages {
            if self.pause_until(self.next_due).await.is_none() || self.is_done() {
                break;
            }
            backlog.push(self.message());
            self.next_due += self.fleet.options.interval;
        }
        self.outbox.extend(self.encoder.encode_backlog(&backlog));
    }

    fn acknowledged(&mut self, publication: &Publication) {
        self.fleet.progress.acknowledged();
        if let Some(ledger) = &mut self.ledger {
            ledger.acknowledged(&publication.seqs);
        }
    }

    /// Whether the device produces no more messages.
    fn is_done(&self) -> bool {
        let enough = match self.fleet.options.length {
            RunLength::Messages(messages) => self.generator.produced() >= messages,
            RunLength::Time(_) | RunLength::Endless => false,
        };
        enough || self.fleet.cancel.is_cancelled() || self.fleet.end.is_some_and(|end| end <= Instant::now())
    }

    /// End of the wait for acknowledgements, which begins at the first call.
    fn give_up_at(&mut self) -> Instant {
        *self.give_up.get_or_insert_with(|| Instant::now() + self.fleet.options.drain)
    }
}

/// Ends a connection with DISCONNECT.
async fn farewell(link: &mut BrokerLink, give_up: Instant) -> ConnectionEnd {
    link.disconnect();
    let disconnected = async {
        // An error ends the connection too, and nothing is missing.
        while let Ok(event) = link.next().await {
            if matches!(event, LinkEvent::Disconnected) {
                break;
            }
        }
    };
    tokio::select! {
        () = disconnected => {}
        () = sleep_until(give_up) => {}
    }
    ConnectionEnd::Finished
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits between two attempts to reach a listener.
pub(super) async fn pause() {
    sleep(FIRST_RETRY).await;
}
