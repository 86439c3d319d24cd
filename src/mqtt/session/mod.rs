//! Sessions: state of a client that may outlive its connection. The broker and the connection that owns a session share it.

pub(super) mod account;
pub(super) mod delivery;
pub(super) mod message;
pub(super) mod packet_ids;
pub(super) mod retained_cursor;
pub(super) mod stored;
pub(super) mod timeline;
pub(super) mod will;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::ProtocolVersion;
use super::wire::close::CloseReason;
use crate::access::{Login, Permissions};
use crate::log::Lsn;
use crate::stall::timeout;
use crate::sync::lock;
use account::{Account, Holding};
use delivery::{Delivery, DeliveryGrant, OfferOutcome, QueueLimits, ReturnedMessage, WithdrawnMessages, WriteOutcome};
use message::Message;
use packet_ids::PacketIds;
use retained_cursor::RetainedCursor;
use stored::{SessionOwner, StoredSession};
use will::Will;

/// Number of a connection. Each accepted CONNECT gets the next number; 0 stands for no connection.
pub(crate) type ConnectionId = u64;

/// Owner of a session that was discarded. No connection has this number.
pub(crate) const DISCARDED: ConnectionId = u64::MAX;

/// Bit in a session's owner: access rules took the session from its connection, and that connection must end. The lower bits
/// are the connection's number.
const REVOKED: ConnectionId = 1 << 63;

/// Bit in a session's owner beside [`REVOKED`]: a bound of all clients is reached, and the session's user holds most.
const PUSHED_OUT: ConnectionId = 1 << 62;

/// Longest wait of a new connection for the previous connection of the same client to read what its socket still holds.
const SETTLE: Duration = Duration::from_secs(1);

/// Sums over all sessions, for the global bound and the metrics.
#[derive(Debug, Default)]
pub(crate) struct SessionTotals {
    pub messages: AtomicUsize,
    pub bytes: AtomicUsize,
    /// Messages that are queued or unacknowledged. A message counts once in each session that holds it.
    pub held: AtomicUsize,
    /// Bytes of the queued and unacknowledged messages. A message counts once, however many sessions hold it.
    pub held_bytes: Arc<AtomicUsize>,
}

impl SessionTotals {
    /// Memory of all queued and unacknowledged messages, in bytes.
    pub fn held_bytes(&self) -> usize {
        /// Estimated memory of one entry in a session's queue, without the message.
        const PLACE_BYTES: usize = 128;
        self.held_bytes.load(Ordering::Relaxed) + PLACE_BYTES * self.held.load(Ordering::Relaxed)
    }
}

/// A session of a client, with or without a connection. The broker and the connection that owns the session share it.
///
/// The atomic fields let a connection find out without locking that nothing is to be done for its session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Number of the session, never 0. It is the number of the connection that began the session.
    pub id: u64,
    /// User that the session belongs to; `None` for clients without credentials. Users do not share sessions.
    pub user: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// What the user holds.
    pub account: Arc<Account>,
    owner: AtomicU64,
    /// Whether the queue may hold messages to send.
    outbound: AtomicBool,
    /// Whether the session outlives its connection (session expiry above 0).
    lasting: AtomicBool,
    /// Whether the session changed since it was last stored.
    changed: AtomicBool,
    /// Milliseconds, in the time of the session store, at which a round first saw that the session changed; 0: none has.
    changed_ms: AtomicU64,
    /// Whether retained messages of new subscriptions are still to be queued.
    awaits_retained: AtomicBool,
    /// Whether a new connection of the same client waits for the owner to read its socket once more.
    look_requested: AtomicBool,
    /// Notified when the owner has read its socket after `look_requested`, and when the owner has ended.
    looked: Notify,
    state: Mutex<SessionState>,
    totals: Arc<SessionTotals>,
}

/// Part of a [`Session`] that its lock guards.
#[derive(Debug)]
pub(crate) struct SessionState {
    /// Login of the client, as the newest access policy judged it.
    pub login: Login,
    /// Topics that the client may publish and subscribe to.
    pub permissions: Permissions,
    /// Whether unacknowledged messages are left that the client may no longer receive. They would be sent again on a new
    /// connection.
    pub holds_denied: bool,
    /// Topic filters of the session's subscriptions.
    pub filters: BTreeSet<Box<str>>,
    /// Sum of the topic levels of all filters.
    pub levels: usize,
    /// Filters whose retained messages are still to be queued, with the place where that goes on.
    pub retained_due: BTreeMap<Box<str>, RetainedCursor>,
    /// Seconds that the session outlives its connection; `u32::MAX` for ever.
    pub expiry_s: u32,
    /// Unix time in milliseconds at which the session lost its connection; `None` while it has one.
    pub disconnected_ms: Option<i64>,
    /// Number of the session in the order in which sessions lost their connection; `None` while it has one.
    pub offline: Option<u64>,
    /// Key of the broker's timer that ends the session if no connection comes.
    pub expires: Option<(Instant, u64)>,
    /// Will that waits for its delay, with the key of the broker's timer that publishes it.
    pub will: Option<(Arc<Will>, (Instant, u64))>,
    /// Time of the last store, and the size of the stored session in bytes.
    pub stored: Option<(Instant, usize)>,
    delivery: Delivery,
    /// Packet identifiers of QoS 2 publishes that were received and that the client has not released.
    received: PacketIds,
    /// Journal position below which all publishes of `received` stand.
    received_until: Lsn,
    waker: Option<Waker>,
}

impl SessionState {
    /// Number of messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.delivery.queued()
    }

    /// Whether no new connection can continue the session. That is so when the session has expired, and when its expiry is 0
    /// while a connection has it: the session ends with that connection.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.offline {
            Some(_) => self.expires.is_some_and(|(at, _)| at <= now),
            None => self.expiry_s == 0,
        }
    }
}

impl Session {
    /// Makes a new session, owned by the connection with the number `id`.
    pub fn new(
        id: u64,
        login: Login,
        permissions: Permissions,
        client_id: Arc<str>,
        delivery: Delivery,
        totals: Arc<SessionTotals>,
        account: Arc<Account>,
    ) -> Self {
        let user = login.identity.user.clone();
        let state = SessionState {
            login,
            permissions,
            holds_denied: false,
            filters: BTreeSet::new(),
            levels: 0,
            retained_due: BTreeMap::new(),
            expiry_s: 0,
            disconnected_ms: None,
            offline: None,
            expires: None,
            will: None,
            stored: None,
            delivery,
            received: PacketIds::default(),
            received_until: Lsn(0),
            waker: None,
        };
        let [outbound, lasting, changed, awaits_retained, look_requested] = [const { AtomicBool::new(false) }; 5];
        let (owner, state) = (AtomicU64::new(id), Mutex::new(state));
        let looked = Notify::new();
        Self {
            id,
            user,
            client_id,
            account,
            owner,
            outbound,
            lasting,
            changed,
            changed_ms: AtomicU64::new(0),
            awaits_retained,
            look_requested,
            looked,
            state,
            totals,
        }
    }

    /// Makes a session without a connection from its stored form. `exactly` says that the stored form is the last state (an
    /// orderly stop); otherwise a crash came between. The caller removes messages that the client may no longer receive.
    pub fn restored(
        id: u64,
        stored: StoredSession,
        exactly: bool,
        permissions: Permissions,
        limits: QueueLimits,
        totals: Arc<SessionTotals>,
        account: Arc<Account>,
    ) -> Self {
        let delivery = Delivery::new(limits, 0);
        let login = stored.owner.to_login();
        let session = Self::new(id, login, permissions, stored.owner.client_id, delivery, totals, account);
        {
            let mut state = session.any();
            session.hand_over(&mut state, 0);
            state.disconnected_ms = stored.disconnected_ms;
            let delivery = if exactly { stored.delivery } else { stored.delivery.after_a_crash() };
            session.count_change(&mut state, |state| state.delivery = Delivery::from_stored(delivery, limits));
            state.delivery.messages().for_each(|message| message.count_in(&session.totals.held_bytes));
            for id in stored.received.into_iter().filter(|_| exactly) {
                state.received.insert(id);
            }
            session.set_expiry(&mut state, stored.expiry_s);
        }
        session
    }

    /// Sets how many seconds the session outlives its connection.
    pub fn set_expiry(&self, state: &mut SessionState, expiry_s: u32) {
        state.expiry_s = expiry_s;
        self.lasting.store(expiry_s > 0, Ordering::Release);
        self.touch();
    }

    /// Whether the session outlives its connection.
    pub fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Acquire)
    }

    /// Marks the session as changed, so that it is stored again.
    pub fn touch(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Whether the session outlives its connection and changed since it was last stored.
    pub fn is_to_store(&self) -> bool {
        self.changed.load(Ordering::Acquire) && self.is_lasting()
    }

    /// Since when the session waits to be stored, in the time of the session store, whose present time is `now`. The first
    /// call after a change notes the time.
    pub fn waits_since(&self, now: Duration) -> Duration {
        let now_ms = (now.as_millis() as u64).max(1);
        match self.changed_ms.compare_exchange(0, now_ms, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(since_ms) => Duration::from_millis(since_ms),
        }
    }

    /// The form in which the session is stored, without its subscriptions; `None` where a restart must find nothing. At an
    /// orderly stop `stopped_at` is the end of the journal: nothing changes after that.
    pub fn to_stored(&self, state: &SessionState, stopped_at: Option<Lsn>) -> Option<StoredSession> {
        if self.owner() == DISCARDED || !self.is_lasting() {
            return None;
        }
        self.changed.store(false, Ordering::Release);
        self.changed_ms.store(0, Ordering::Release);
        // While weir runs, the client may release an identifier and use it again before a crash. After the crash the second
        // publish would look like a repetition of the first and be lost. So identifiers are stored at an orderly stop only.
        let received = if stopped_at.is_some() { state.received.iter().collect() } else { Vec::new() };
        Some(StoredSession {
            owner: SessionOwner::of(&self.client_id, &state.login),
            expiry_s: state.expiry_s,
            disconnected_ms: state.disconnected_ms,
            subscriptions: Vec::new(),
            delivery: state.delivery.to_stored(),
            received,
            stopped_at,
        })
    }

    /// Number of the connection that owns the session; 0 for none.
    #[inline]
    pub fn owner(&self) -> ConnectionId {
        self.owner.load(Ordering::Acquire)
    }

    /// Locks the session for `connection`; `None` if another connection owns it.
    pub fn own(&self, connection: ConnectionId) -> Option<MutexGuard<'_, SessionState>> {
        let state = lock(&self.state);
        (self.owner() == connection).then_some(state)
    }

    /// Locks the session without looking at its owner.
    pub fn any(&self) -> MutexGuard<'_, SessionState> {
        lock(&self.state)
    }

    /// Gives the session to `owner` (a connection, 0 for none, or [`DISCARDED`]) and wakes the previous owner. A discarded
    /// session returns the messages that other members of its shared subscriptions can take.
    pub fn hand_over(&self, state: &mut SessionState, owner: ConnectionId) -> Vec<ReturnedMessage> {
        self.owner.store(owner, Ordering::Release);
        self.touch();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        if owner != DISCARDED {
            return Vec::new();
        }
        self.count_change(state, |state| {
            let returned = state.delivery.take_shared();
            state.delivery.clear();
            returned
        })
    }

    /// Whether a connection owns the session.
    pub fn is_connected(&self) -> bool {
        let owner = self.owner();
        owner != 0 && owner & REVOKED == 0
    }

    /// Takes the session from its connection, if it has one: the access rules no longer let the client in.
    pub fn revoke(&self, state: &mut SessionState) {
        if self.is_connected() {
            self.hand_over(state, self.owner() | REVOKED);
        }
    }

    /// Takes the session from its connection, if it has one, because another user needs the room.
    pub fn push_out(&self, state: &mut SessionState) {
        if self.is_connected() {
            self.hand_over(state, self.owner() | REVOKED | PUSHED_OUT);
        }
    }

    /// Whether the session was taken from this connection by [`Session::revoke`] or [`Session::push_out`].
    pub fn is_revoked(&self, connection: ConnectionId) -> bool {
        self.owner() & !PUSHED_OUT == connection | REVOKED
    }

    /// The reason with which `connection`, which no longer owns the session, ends.
    pub fn lost(&self, connection: ConnectionId) -> CloseReason {
        if !self.is_revoked(connection) {
            CloseReason::TakenOver
        } else if self.owner() & PUSHED_OUT == 0 {
            CloseReason::NotAuthorized
        } else {
            CloseReason::OverQuota
        }
    }

    /// Removes the messages that the client may no longer receive, see [`Delivery::withdraw`].
    pub fn withdraw(&self, state: &mut SessionState) -> WithdrawnMessages {
        let online = state.offline.is_none();
        self.count_change(state, |state| {
            let SessionState { delivery, permissions, .. } = state;
            delivery.withdraw(online, |topic| permissions.may_subscribe(topic))
        })
    }

    /// Completes when the connection that owns the session has processed everything that its client sent so far, or has
    /// ended; at once where no connection owns it.
    pub async fn settle(&self) {
        let mut looked = pin!(self.looked.notified());
        looked.as_mut().enable();
        let waker = {
            let state = self.any();
            if !self.is_connected() {
                return;
            }
            self.look_requested.store(true, Ordering::Release);
            state.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        // Without an answer within the limit the new connection takes the session over as it is.
        let _ = timeout(SETTLE, looked).await;
    }

    /// Takes the request of a new connection that the owner look at its socket, if there is one. [`Session::answer_look`]
    /// answers it.
    #[inline]
    pub fn take_look_request(&self) -> bool {
        self.look_requested.load(Ordering::Acquire) && self.look_requested.swap(false, Ordering::AcqRel)
    }

    /// Tells waiting connections that the owner has read its socket, or has ended.
    pub fn answer_look(&self) {
        self.looked.notify_waiters();
    }

    /// Continues the session on a new connection whose client takes `window` unacknowledged messages. Returns the journal
    /// position below which the session's unreleased QoS 2 publishes stand: once the journal is durable up to there, a repetition
    /// of such a publish may be acknowledged.
    pub fn resume(&self, state: &mut SessionState, window: u16) -> Lsn {
        state.delivery.resume(window);
        self.outbound.store(true, Ordering::Release);
        state.received_until
    }

    /// Sets how many topic aliases the client of `connection` takes.
    pub fn allow_aliases(&self, connection: ConnectionId, max: u16) {
        if let Some(mut state) = self.own(connection) {
            state.delivery.allow_aliases(max);
        }
    }

    /// Sets the waker that is woken when a message is queued or the session gets another owner.
    pub fn register(&self, connection: ConnectionId, waker: &Waker) {
        if let Some(mut state) = self.own(connection) {
            state.waker = Some(waker.clone());
        }
    }

    /// Queues a message for the session and wakes its connection. `None` where the message is not for this session: QoS 0
    /// without a connection, or a discarded session.
    pub fn offer(&self, message: &Arc<Message>, grant: DeliveryGrant, now: Instant) -> Option<OfferOutcome> {
        let mut state = lock(&self.state);
        match self.owner() {
            DISCARDED => return None,
            _ if grant.qos == 0 && !self.is_connected() => return None,
            _ => {}
        }
        if self.account.full(Holding::QueuedBytes, message.bytes()).is_some() {
            return Some(OfferOutcome::OverQuota);
        }
        if state.delivery.is_out_of_room(self.totals.held_bytes(), &self.account) {
            return Some(OfferOutcome::NoRoom);
        }
        let offer = self.count_change(&mut state, |state| state.delivery.offer(message, grant, now));
        if offer == OfferOutcome::Queued && !self.outbound.swap(true, Ordering::AcqRel) {
            let waker = state.waker.clone();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Some(offer)
    }

    /// Remembers that the retained messages of a new subscription are to be queued.
    pub fn await_retained(&self, state: &mut SessionState, filter: &str, due: RetainedCursor) {
        state.retained_due.insert(filter.into(), due);
        self.awaits_retained.store(true, Ordering::Release);
    }

    /// Whether retained messages of subscriptions are still to be queued. Does not lock.
    #[inline]
    pub fn awaits_retained(&self) -> bool {
        self.awaits_retained.load(Ordering::Acquire)
    }

    /// Queues retained messages for a subscription. Wakes nobody: the caller is the session's connection, which sends next.
    pub fn offer_retained(
        &self,
        state: &mut SessionState,
        messages: &[Arc<Message>],
        grant: impl Fn(&Message) -> DeliveryGrant,
    ) {
        let offer = |state: &mut SessionState| {
            for message in messages {
                state.delivery.offer_retained(message, grant(message));
            }
        };
        self.count_change(state, offer);
        if !messages.is_empty() {
            self.outbound.store(true, Ordering::Release);
        }
    }

    /// Updates [`Session::awaits_retained`] after some retained messages were queued.
    pub fn note_retained_due(&self, state: &SessionState) {
        self.awaits_retained.store(!state.retained_due.is_empty(), Ordering::Release);
    }

    /// Appends packets for the client to `out`, see [`Delivery::write`]. `None` where there is nothing to deliver.
    pub fn write(
        &self,
        connection: ConnectionId,
        version: ProtocolVersion,
        max_packet_bytes: usize,
        max_bytes: usize,
        now: impl FnOnce() -> Instant,
        out: &mut Vec<u8>,
    ) -> Option<WriteOutcome> {
        // The flag is cleared before the queue is read: a message that is queued afterwards sets it again and wakes.
        if !self.outbound.load(Ordering::Acquire) || !self.outbound.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut state = self.own(connection)?;
        let write = |state: &mut SessionState| state.delivery.write(version, max_packet_bytes, max_bytes, now(), out);
        let written = self.count_change(&mut state, write);
        if written.more {
            self.outbound.store(true, Ordering::Release);
        }
        Some(written)
    }

    /// Takes a PUBACK, PUBREC or PUBCOMP of the client, see [`Delivery::acknowledge`]. Returns whether a PUBREL answers it.
    ///
    /// # Errors
    /// The packet does not fit the QoS or the stage of the message: a protocol error.
    pub fn acknowledge(
        &self,
        connection: ConnectionId,
        kind: u8,
        packet_id: u16,
        reason: u8,
    ) -> Result<bool, CloseReason> {
        let Some(mut state) = self.own(connection) else { return Ok(false) };
        let answer = self.count_change(&mut state, |state| state.delivery.acknowledge(kind, packet_id, reason));
        self.outbound.store(true, Ordering::Release); // the window may have opened
        answer
    }

    /// Whether a QoS 2 publish with this packet identifier was received and not released.
    pub fn holds(&self, connection: ConnectionId, packet_id: u16) -> bool {
        self.own(connection).is_some_and(|state| state.received.contains(packet_id))
    }

    /// Remembers the identifiers of QoS 2 publishes that stand in the journal below `until`. Does nothing where `connection` no
    /// longer owns the session: on the new connection the client may use these identifiers again.
    pub fn hold(&self, connection: ConnectionId, packet_ids: &mut PacketIds, until: Lsn) {
        match self.own(connection) {
            Some(mut state) => {
                for id in packet_ids.drain() {
                    state.received.insert(id);
                }
                state.received_until = state.received_until.max(until);
            }
            None => packet_ids.drain().for_each(drop),
        }
    }

    /// Forgets an identifier at its PUBREL; `false` if it was not held.
    pub fn release(&self, connection: ConnectionId, packet_id: u16) -> bool {
        self.own(connection).is_some_and(|mut state| state.received.remove(packet_id))
    }

    fn count_change<T>(&self, state: &mut SessionState, change: impl FnOnce(&mut SessionState) -> T) -> T {
        let count = |delivery: &Delivery| [delivery.queued(), delivery.queued_bytes(), delivery.held()];
        let (before, held_before) = (count(&state.delivery), state.delivery.held_bytes());
        let result = change(state);
        let after = count(&state.delivery);
        self.touch();
        let held_after = state.delivery.held_bytes();
        if held_after != held_before {
            self.account.change_queued(held_before, held_after);
        }
        let totals = [&self.totals.messages, &self.totals.bytes, &self.totals.held];
        for (total, (after, before)) in totals.into_iter().zip(after.into_iter().zip(before)) {
            if after != before {
                // Wrapping arithmetic: adding the two's complement of a decrease subtracts it.
                total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::{CountingWaker, anonymous, policy};

    fn session() -> (Session, Arc<SessionTotals>) {
        let totals = Arc::new(SessionTotals::default());
        let limits = QueueLimits { messages: 2, bytes: 1_000, total_bytes: usize::MAX };
        let (login, client_id): (Login, Arc<str>) = (anonymous(), "c".into());
        let permissions = policy().permissions(&login.identity, Arc::clone(&client_id));
        let delivery = Delivery::new(limits, 10);
        let session = Session::new(7, login, permissions, client_id, delivery, Arc::clone(&totals), Account::of_weir());
        (session, totals)
    }

    fn message() -> Arc<Message> {
        Arc::new(Message::new("t", "xy".into(), 1, false))
    }

    fn offer(session: &Session, qos: u8) -> Option<OfferOutcome> {
        session.offer(&message(), DeliveryGrant { qos, ..DeliveryGrant::default() }, Instant::now())
    }

    fn waiting(totals: &SessionTotals) -> (usize, usize) {
        (totals.messages.load(Ordering::Relaxed), totals.bytes.load(Ordering::Relaxed))
    }

    #[test]
    fn the_owner_is_woken_once_per_look() {
        let (session, totals) = session();
        let (waker, count) = CountingWaker::pair();
        session.register(7, &waker);
        offer(&session, 1);
        offer(&session, 1);
        assert_eq!(count.get(), 1);
        assert_eq!(waiting(&totals), (2, 6));
        let mut out = Vec::new();
        assert_eq!(
            session.write(7, ProtocolVersion::V4, 1_000, 1_000, Instant::now, &mut out).unwrap().sent,
            [0, 2, 0]
        );
        assert_eq!(session.write(7, ProtocolVersion::V4, 1_000, 1_000, Instant::now, &mut out), None, "nothing new");
        assert_eq!(waiting(&totals), (0, 0));
        offer(&session, 1);
        assert_eq!(count.get(), 2);
    }

    #[test]
    fn a_connection_that_lost_its_session_changes_nothing() {
        let (session, _) = session();
        let (waker, count) = CountingWaker::pair();
        session.register(7, &waker);
        session.hand_over(&mut session.any(), 8);
        assert_eq!(count.get(), 1, "it is told");
        let mut ids = PacketIds::default();
        ids.insert(5);
        session.hold(7, &mut ids, Lsn(10));
        assert!(ids.is_empty() && !session.holds(8, 5));
        offer(&session, 1);
        assert_eq!(session.write(7, ProtocolVersion::V4, 1_000, 1_000, Instant::now, &mut Vec::new()), None);
    }

    #[test]
    fn held_ids_survive_until_released() {
        let (session, _) = session();
        let mut ids = PacketIds::default();
        ids.insert(5);
        session.hold(7, &mut ids, Lsn(10));
        session.hand_over(&mut session.any(), 8);
        assert_eq!(session.resume(&mut session.any(), 10), Lsn(10));
        assert!(session.holds(8, 5));
        assert!(session.release(8, 5));
        assert!(!session.release(8, 5));
    }

    #[test]
    fn a_discarded_session_counts_nothing() {
        let (session, totals) = session();
        offer(&session, 1);
        session.hand_over(&mut session.any(), DISCARDED);
        assert_eq!(waiting(&totals), (0, 0));
        assert_eq!(offer(&session, 1), None);
    }

    #[test]
    fn qos_0_is_not_kept_without_a_connection() {
        let (session, _) = session();
        session.hand_over(&mut session.any(), 0);
        assert_eq!(offer(&session, 0), None);
        assert_eq!(offer(&session, 1), Some(OfferOutcome::Queued));
    }
}
