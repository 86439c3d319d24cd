//! Sessions: state of a client that may outlive its connection. The broker and the connection that owns a session share it.

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
use tokio::time::timeout;

use super::ProtocolVersion;
use super::wire::close::CloseReason;
use crate::access::{Login, Permissions};
use crate::log::Lsn;
use crate::sync::lock;
use delivery::{Delivery, DeliveryGrant, OfferOutcome, QueueLimits, ReturnedMessage, WithdrawnMessages, WriteOutcome};
use message::Message;
use packet_ids::PacketIds;
use retained_cursor::RetainedCursor;
use stored::{SessionOwner, StoredSession};
use will::Will;

/// Number of a connection; each accepted CONNECT gets the next one. 0: none.
pub(crate) type ConnectionId = u64;

/// The session was discarded: no connection has this number.
pub(crate) const DISCARDED: ConnectionId = u64::MAX;

/// Bit of an owner: its client may be here no longer; the connection with the number below it is to end.
const REVOKED: ConnectionId = 1 << 63;

/// How long a new connection waits for the one before it to look at its socket; it does so when it is next polled.
const SETTLE: Duration = Duration::from_secs(1);

/// Messages in all sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionTotals {
    pub messages: AtomicUsize,
    pub bytes: AtomicUsize,
    /// Messages that wait or are unacknowledged, once for each session.
    pub held: AtomicUsize,
    /// Bytes of these messages, each once.
    pub held_bytes: Arc<AtomicUsize>,
}

impl SessionTotals {
    /// What sessions hold, in bytes.
    pub fn held_bytes(&self) -> usize {
        /// Bytes of a message's place in a session, about.
        const PLACE_BYTES: usize = 128;
        self.held_bytes.load(Ordering::Relaxed) + PLACE_BYTES * self.held.load(Ordering::Relaxed)
    }
}

/// A session of a client, with or without a connection. The broker and the connection that owns it share it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Number of the session; never 0.
    pub id: u64,
    /// Whose it is; `None`: of clients without credentials.
    pub user: Option<Arc<str>>,
    pub client_id: Arc<str>,
    owner: AtomicU64,
    /// Whether there may be something to deliver: the connection looks without locking.
    outbound: AtomicBool,
    /// Whether it outlives its connection.
    lasting: AtomicBool,
    /// Whether something changed since it was stored.
    changed: AtomicBool,
    /// Whether retained messages are still to be queued for subscriptions.
    awaits_retained: AtomicBool,
    /// Whether a new connection waits for the owner to look at its socket.
    look_requested: AtomicBool,
    /// Told when the owner has looked, and when it has ended.
    looked: Notify,
    state: Mutex<SessionState>,
    totals: Arc<SessionTotals>,
}

/// Part of a [`Session`] that its lock guards.
#[derive(Debug)]
pub(crate) struct SessionState {
    /// Who its client is, as it was found at the last look.
    pub login: Login,
    /// What its client may do.
    pub permissions: Permissions,
    /// Whether messages that it may no longer have could be sent to it once more.
    pub holds_denied: bool,
    /// Filters this session subscribed to.
    pub filters: BTreeSet<Box<str>>,
    /// Levels of all of them.
    pub levels: usize,
    /// Those of them whose retained messages are still to be queued.
    pub retained_due: BTreeMap<Box<str>, RetainedCursor>,
    /// Seconds that it outlives its connection.
    pub expiry_s: u32,
    /// When it lost its connection, in milliseconds since 1970; `None`: it has one.
    pub disconnected_ms: Option<i64>,
    /// Its place among the sessions without a connection.
    pub offline: Option<u64>,
    /// When it ends if no connection comes, as the broker's timers know it.
    pub expires: Option<(Instant, u64)>,
    /// A will that waits for its delay, and until when, as the broker's timers know it.
    pub will: Option<(Arc<Will>, (Instant, u64))>,
    /// When it was last stored, and its bytes then.
    pub stored: Option<(Instant, usize)>,
    delivery: Delivery,
    /// QoS 2 publishes taken and not yet released by the client.
    received: PacketIds,
    /// Journal position that all of `received` are below.
    received_until: Lsn,
    waker: Option<Waker>,
}

impl SessionState {
    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.delivery.queued()
    }

    /// Whether no new connection can continue it: its time has passed, or it ends with the connection that has it and
    /// that the new one replaces.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.offline {
            Some(_) => self.expires.is_some_and(|(at, _)| at <= now),
            None => self.expiry_s == 0,
        }
    }
}

impl Session {
    /// The session of the connection with the number `id`, which becomes its own.
    pub fn new(
        id: u64,
        login: Login,
        permissions: Permissions,
        client_id: Arc<str>,
        delivery: Delivery,
        totals: Arc<SessionTotals>,
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
            owner,
            outbound,
            lasting,
            changed,
            awaits_retained,
            look_requested,
            looked,
            state,
            totals,
        }
    }

    /// A session without a connection that goes on from where it was stored: `exactly`, or a crash came between. What it
    /// may no longer have is for the caller to take away.
    pub fn restored(
        id: u64,
        stored: StoredSession,
        exactly: bool,
        permissions: Permissions,
        limits: QueueLimits,
        totals: Arc<SessionTotals>,
    ) -> Self {
        let delivery = Delivery::new(limits, 0);
        let login = stored.owner.to_login();
        let session = Self::new(id, login, permissions, stored.owner.client_id, delivery, totals);
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

    /// The session outlives its connection by so many seconds.
    pub fn set_expiry(&self, state: &mut SessionState, expiry_s: u32) {
        state.expiry_s = expiry_s;
        self.lasting.store(expiry_s > 0, Ordering::Release);
        self.touch();
    }

    /// Whether it outlives its connection.
    pub fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Acquire)
    }

    /// Something changed that a restart is not to lose.
    pub fn touch(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Whether it outlives its connection and changed since it was stored.
    pub fn is_to_store(&self) -> bool {
        self.changed.load(Ordering::Acquire) && self.is_lasting()
    }

    /// What a restart is to find of it, without its subscriptions; `None`: nothing. `stopped_at`: weir stops in an
    /// orderly way and the journal ends there, so that nothing changes any more.
    pub fn to_stored(&self, state: &SessionState, stopped_at: Option<Lsn>) -> Option<StoredSession> {
        if self.owner() == DISCARDED || !self.is_lasting() {
            return None;
        }
        self.changed.store(false, Ordering::Release);
        // Where weir goes on, the client may release an identifier and use it for another publish before a crash: taken
        // for known after it, that one would be lost.
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

    /// The connection that owns the session now.
    #[inline]
    pub fn owner(&self) -> ConnectionId {
        self.owner.load(Ordering::Acquire)
    }

    /// Locks the session for `connection`; `None` if the session is no longer its own.
    pub fn own(&self, connection: ConnectionId) -> Option<MutexGuard<'_, SessionState>> {
        let state = lock(&self.state);
        (self.owner() == connection).then_some(state)
    }

    /// Locks the session whoever owns it.
    pub fn any(&self) -> MutexGuard<'_, SessionState> {
        lock(&self.state)
    }

    /// Gives the session to another owner (or none, or [`DISCARDED`]) and wakes the one that had it. Returns what a
    /// discarded session leaves to the other members of its shared subscriptions.
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

    /// Whether a connection has it now.
    pub fn is_connected(&self) -> bool {
        let owner = self.owner();
        owner != 0 && owner & REVOKED == 0
    }

    /// Takes the session from the connection that has it, if one has, since its client may be here no longer.
    pub fn revoke(&self, state: &mut SessionState) {
        if self.is_connected() {
            self.hand_over(state, self.owner() | REVOKED);
        }
    }

    /// Whether the session was taken from this connection by [`Session::revoke`].
    pub fn is_revoked(&self, connection: ConnectionId) -> bool {
        self.owner() == connection | REVOKED
    }

    /// Why this connection, which lost its session, ends.
    pub fn lost(&self, connection: ConnectionId) -> CloseReason {
        if self.is_revoked(connection) { CloseReason::NotAuthorized } else { CloseReason::TakenOver }
    }

    /// Takes away the messages that the client may not have, see [`Delivery::withdraw`].
    pub fn withdraw(&self, state: &mut SessionState) -> WithdrawnMessages {
        let online = state.offline.is_none();
        self.count_change(state, |state| {
            let SessionState { delivery, permissions, .. } = state;
            delivery.withdraw(online, |topic| permissions.may_subscribe(topic))
        })
    }

    /// Completes when the connection that has the session, if one has, has taken what its client sent on it until now,
    /// or has ended.
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
        // Without an answer the new connection goes on: it takes the session over as it is.
        let _ = timeout(SETTLE, looked).await;
    }

    /// Takes the request of a new connection that the owner look at its socket, if there is one. [`Session::answer_look`]
    /// answers it.
    #[inline]
    pub fn take_look_request(&self) -> bool {
        self.look_requested.load(Ordering::Acquire) && self.look_requested.swap(false, Ordering::AcqRel)
    }

    /// Answers the requests to look: the owner has read its socket, or has ended.
    pub fn answer_look(&self) {
        self.looked.notify_waiters();
    }

    /// The session continues on a new connection with this window. Returns the position that the QoS 2 publishes it
    /// holds are below: a repeated one may be acknowledged once the journal has passed it.
    pub fn resume(&self, state: &mut SessionState, window: u16) -> Lsn {
        state.delivery.resume(window);
        self.outbound.store(true, Ordering::Release);
        state.received_until
    }

    /// The client of this connection takes so many topic aliases.
    pub fn allow_aliases(&self, connection: ConnectionId, max: u16) {
        if let Some(mut state) = self.own(connection) {
            state.delivery.allow_aliases(max);
        }
    }

    /// Whom to wake when there is something to deliver or the session is taken over.
    pub fn register(&self, connection: ConnectionId, waker: &Waker) {
        if let Some(mut state) = self.own(connection) {
            state.waker = Some(waker.clone());
        }
    }

    /// Queues a message for the session and wakes its connection. `None`: it is not for this session (QoS 0 without a
    /// connection, or the session is gone).
    pub fn offer(&self, message: &Arc<Message>, grant: DeliveryGrant, now: Instant) -> Option<OfferOutcome> {
        let mut state = lock(&self.state);
        match self.owner() {
            DISCARDED => return None,
            _ if grant.qos == 0 && !self.is_connected() => return None,
            _ => {}
        }
        if state.delivery.is_out_of_room(self.totals.held_bytes()) {
            return Some(OfferOutcome::Full);
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

    /// The retained messages of a new subscription are to be queued.
    pub fn await_retained(&self, state: &mut SessionState, filter: &str, due: RetainedCursor) {
        state.retained_due.insert(filter.into(), due);
        self.awaits_retained.store(true, Ordering::Release);
    }

    /// Whether retained messages are still to be queued for subscriptions: the connection looks without locking.
    #[inline]
    pub fn awaits_retained(&self) -> bool {
        self.awaits_retained.load(Ordering::Acquire)
    }

    /// Queues retained messages for a subscription. The caller is the connection, which sends next.
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

    /// Some of the retained messages that are due were queued: whether there are more.
    pub fn note_retained_due(&self, state: &SessionState) {
        self.awaits_retained.store(!state.retained_due.is_empty(), Ordering::Release);
    }

    /// Appends what there is to deliver, see [`Delivery::write`].
    pub fn write(
        &self,
        connection: ConnectionId,
        version: ProtocolVersion,
        max_packet_bytes: usize,
        max_bytes: usize,
        now: impl FnOnce() -> Instant,
        out: &mut Vec<u8>,
    ) -> Option<WriteOutcome> {
        // The flag falls before the queue is looked at: what is offered from now on raises it again and wakes.
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

    /// A PUBACK, PUBREC or PUBCOMP of the client, see [`Delivery::acknowledge`].
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

    /// Whether a QoS 2 publish with this id was taken and not released.
    pub fn holds(&self, connection: ConnectionId, packet_id: u16) -> bool {
        self.own(connection).is_some_and(|state| state.received.contains(packet_id))
    }

    /// Remembers QoS 2 publishes that the journal has taken below `until`. A connection that lost its session in the
    /// meantime must not: the client may have used the ids again.
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

    /// PUBREL: forgets the id; `false` if it was not held.
    pub fn release(&self, connection: ConnectionId, packet_id: u16) -> bool {
        self.own(connection).is_some_and(|mut state| state.received.remove(packet_id))
    }

    fn count_change<T>(&self, state: &mut SessionState, change: impl FnOnce(&mut SessionState) -> T) -> T {
        let count = |delivery: &Delivery| [delivery.queued(), delivery.queued_bytes(), delivery.held()];
        let before = count(&state.delivery);
        let result = change(state);
        let after = count(&state.delivery);
        self.touch();
        let totals = [&self.totals.messages, &self.totals.bytes, &self.totals.held];
        for (total, (after, before)) in totals.into_iter().zip(after.into_iter().zip(before)) {
            if after != before {
                // Wrapping arithmetic: adding the two's complement of a decrease is the decrease.
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
        (Session::new(7, login, permissions, client_id, delivery, Arc::clone(&totals)), totals)
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
