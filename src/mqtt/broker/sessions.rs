//! Who has which session: attach, take-over, detach, and what ends in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Broker;
use crate::log::Lsn;
use crate::mqtt::delivery::Delivery;
use crate::mqtt::handle::{ConnectionId, DISCARDED, Handle, Kept, lock};
use crate::mqtt::will::Will;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_client: HashMap<Arc<str>, Arc<Handle>>,
    /// Sessions without a connection in the order in which they lost it.
    offline: BTreeMap<u64, Arc<Handle>>,
    /// What is due when: at most two entries per session without a connection.
    timers: BTreeMap<(Instant, u64), Timer>,
    /// Wills that are due.
    wills: Vec<Will>,
    pub(super) online: usize,
    /// The most that were online.
    pub(super) most_online: usize,
    /// Ended because their time was over.
    pub(super) expired: usize,
    last_number: u64,
}

#[derive(Debug)]
enum Timer {
    /// The session ends.
    Session(Arc<Handle>),
    /// The session's will is published.
    Will(Arc<Handle>),
}

impl Sessions {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What a connection asks for when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attach<'a> {
    pub client_id: &'a str,
    /// Whether an existing session is discarded.
    pub clean: bool,
    /// Receive maximum of the client.
    pub receive_maximum: u16,
    /// Seconds that the session is to outlive this connection.
    pub expiry_s: u32,
}

/// A session given to a connection.
#[derive(Debug)]
pub(crate) struct Attached {
    pub handle: Arc<Handle>,
    pub connection: ConnectionId,
    pub session_present: bool,
    /// See [`Handle::resume`].
    pub received_until: Lsn,
}

/// `max_connections` are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyConnections;

impl Broker {
    /// Before a client's new connection is attached: lets the one that it has, if any, take what is there for it. A
    /// DISCONNECT that lies unread would leave the client with a will and a session that it has ended.
    pub(crate) async fn settle(&self, client_id: &str) {
        let existing = lock(&self.sessions).by_client.get(client_id).cloned();
        if let Some(handle) = existing {
            handle.settle().await;
        }
    }

    /// Gives a session to a new connection: the client's existing one (taken from the connection that has it), or a
    /// new one. At the bound of sessions the one that has been without a connection for longest is discarded.
    pub(crate) fn attach(&self, attach: &Attach<'_>) -> Result<Attached, TooManyConnections> {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        let existing = sessions.by_client.get(attach.client_id).cloned();
        let taken_over = existing.as_ref().is_some_and(|handle| handle.any().offline.is_none());
        if !taken_over {
            if sessions.online >= self.max_connections {
                return Err(TooManyConnections);
            }
            sessions.online += 1;
            sessions.most_online = sessions.most_online.max(sessions.online);
        }
        let connection = sessions.number();
        let window = attach.receive_maximum.min(self.max_inflight);
        let over = |handle: &Handle| handle.any().is_over(now);
        match existing {
            Some(handle) if !attach.clean && !over(&handle) => {
                let received_until = {
                    let mut kept = handle.any();
                    // The client is back before its will was due [MQTT-3.1.3-9].
                    Self::stop_timers(&mut sessions, &mut kept);
                    if let Some(place) = kept.offline.take() {
                        sessions.offline.remove(&place);
                    }
                    kept.ends_with_connection = attach.expiry_s == 0;
                    handle.hand_over(&mut kept, connection);
                    handle.resume(&mut kept, window)
                };
                Ok(Attached { handle, connection, session_present: true, received_until })
            }
            existing => {
                if let Some(handle) = existing {
                    self.discard(&mut sessions, &handle);
                }
                self.make_room(&mut sessions);
                let delivery = Delivery::new(self.queue_limits, window);
                let client_id: Arc<str> = attach.client_id.into();
                let totals = Arc::clone(&self.totals);
                let handle = Arc::new(Handle::new(connection, Arc::clone(&client_id), connection, delivery, totals));
                handle.any().ends_with_connection = attach.expiry_s == 0;
                sessions.by_client.insert(client_id, Arc::clone(&handle));
                Ok(Attached { handle, connection, session_present: false, received_until: Lsn(0) })
            }
        }
    }

    fn make_room(&self, sessions: &mut Sessions) {
        // Connected sessions are fewer than `max_connections`, so one without a connection is found if any is needed.
        if sessions.by_client.len() >= self.max_connections
            && let Some((_, oldest)) = sessions.offline.pop_first()
        {
            self.meters.limit("mqtt_sessions");
            self.discard(sessions, &oldest);
        }
    }

    /// How long a session is kept whose client wants this many seconds (`u32::MAX`: for ever); `None`: for ever.
    pub(crate) fn session_expiry(&self, wanted_s: u32) -> Option<Duration> {
        let wanted = (wanted_s < u32::MAX).then(|| Duration::from_secs(u64::from(wanted_s)));
        match (wanted, self.max_session_expiry) {
            (Some(wanted), Some(max)) => Some(wanted.min(max)),
            (wanted, max) => wanted.or(max),
        }
    }

    /// The connection ended. The session outlives it by `expiry_s`. Returns the will if it is to be published now; one
    /// that has to wait comes from [`Broker::due`] later, unless the client is back before.
    pub(crate) fn detach(
        &self,
        handle: &Arc<Handle>,
        connection: ConnectionId,
        expiry_s: u32,
        will: Option<Will>,
    ) -> Option<Will> {
        let mut sessions = lock(&self.sessions);
        match handle.owner() {
            owner if owner == connection => {}
            // Taken over: the session belongs to a newer connection, which also counts for this one. A will that can
            // wait is not due, for the client is back [MQTT-3.1.4-3], unless its session ended with a clean start.
            DISCARDED => return will,
            _ => return will.filter(|will| will.delay_s == 0),
        }
        sessions.online -= 1;
        if expiry_s == 0 {
            self.discard(&mut sessions, handle);
            return will;
        }
        let now = self.timeline.now();
        let expiry = self.session_expiry(expiry_s);
        let place = sessions.number();
        let mut kept = handle.any();
        kept.offline = Some(place);
        handle.hand_over(&mut kept, 0);
        let mut due_now = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay_s));
            let at = now + expiry.map_or(delay, |expiry| delay.min(expiry));
            if at == now {
                due_now = Some(will);
            } else {
                let key = (at, sessions.number());
                kept.will = Some((will, key));
                sessions.timers.insert(key, Timer::Will(Arc::clone(handle)));
            }
        }
        if let Some(expiry) = expiry {
            let key = (now + expiry, sessions.number());
            kept.expires = Some(key);
            sessions.timers.insert(key, Timer::Session(Arc::clone(handle)));
        }
        drop(kept);
        sessions.offline.insert(place, Arc::clone(handle));
        self.timers_changed.notify_one();
        due_now
    }

    /// Forgets the session's timers; returns a will that waited.
    fn stop_timers(sessions: &mut Sessions, kept: &mut Kept) -> Option<Will> {
        if let Some(key) = kept.expires.take() {
            sessions.timers.remove(&key);
        }
        let (will, key) = kept.will.take()?;
        sessions.timers.remove(&key);
        Some(will)
    }

    fn discard(&self, sessions: &mut Sessions, handle: &Arc<Handle>) {
        sessions.by_client.remove(&handle.client_id);
        let mut kept = handle.any();
        if let Some(place) = kept.offline.take() {
            sessions.offline.remove(&place);
        }
        // The session has ended, so its will waits no longer [MQTT-3.1.2-8].
        if let Some(will) = Self::stop_timers(sessions, &mut kept) {
            sessions.wills.push(will);
            self.timers_changed.notify_one();
        }
        let returned = handle.hand_over(&mut kept, DISCARDED);
        let filters = std::mem::take(&mut kept.filters);
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in filters {
                subscriptions.remove(&filter, handle.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        drop(kept);
        self.return_shared(returned);
    }

    /// Ends the sessions whose time is over; returns the wills that are due, and when to look again.
    pub(crate) fn due(&self) -> (Vec<Will>, Option<Instant>) {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        while let Some(entry) = sessions.timers.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Timer::Session(handle) => {
                    sessions.expired += 1;
                    self.discard(&mut sessions, &handle);
                }
                Timer::Will(handle) => {
                    let will = handle.any().will.take();
                    sessions.wills.extend(will.map(|(will, _)| will));
                }
            }
        }
        let next = sessions.timers.first_key_value().map(|((at, _), _)| *at);
        (std::mem::take(&mut sessions.wills), next)
    }

    /// Completes when [`Broker::due`] is to be called earlier than it said.
    pub(crate) async fn timers_changed(&self) {
        self.timers_changed.notified().await;
    }
}
