//! Who has which session: attach, take-over, detach, and what ends in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Broker;
use crate::access::{Login, Policy};
use crate::log::Lsn;
use crate::mqtt::session::delivery::Delivery;
use crate::mqtt::session::will::Will;
use crate::mqtt::session::{ConnectionId, DISCARDED, Handle, Kept};
use crate::sync::lock;

/// User and client identifier. Each user has sessions of its own: with another's client identifier a client neither
/// disturbs nor resumes the other's. Those without a user name are one user.
type SessionKey = (Option<Arc<str>>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_client: HashMap<SessionKey, Arc<Handle>>,
    /// Sessions without a connection in the order in which they lost it.
    pub(super) offline: BTreeMap<u64, Arc<Handle>>,
    /// What is due when: at most two entries per session without a connection.
    pub(super) timers: BTreeMap<(Instant, u64), Timer>,
    /// Wills that are due.
    pub(super) wills: Vec<Arc<Will>>,
    pub(super) online: usize,
    /// The most that were online.
    pub(super) most_online: usize,
    /// Ended because their time was over.
    pub(super) expired: usize,
    last_number: u64,
}

#[derive(Debug)]
pub(super) enum Timer {
    /// The session ends.
    Session(Arc<Handle>),
    /// The session's will is published.
    Will(Arc<Handle>),
}

impl Sessions {
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What a connection asks for when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attach<'a> {
    /// Who the client is.
    pub login: &'a Login,
    /// What says what it may do.
    pub policy: &'a Policy,
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
    pub(crate) async fn settle(&self, user: Option<&Arc<str>>, client_id: &str) {
        let key = (user.cloned(), client_id.into());
        let existing = lock(&self.sessions).by_client.get(&key).cloned();
        if let Some(handle) = existing {
            handle.settle().await;
        }
    }

    /// Gives a session to a new connection: the client's existing one (taken from the connection that has it), or a
    /// new one. At the bound of sessions the one that has been without a connection for longest is discarded.
    pub(crate) fn attach(&self, attach: &Attach<'_>) -> Result<Attached, TooManyConnections> {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        let client_id: Arc<str> = attach.client_id.into();
        let key = (attach.login.identity.user.clone(), Arc::clone(&client_id));
        let existing = sessions.by_client.get(&key).cloned();
        let taken_over = existing.as_ref().is_some_and(|handle| handle.any().offline.is_none());
        if !taken_over {
            if sessions.online >= self.max_connections {
                return Err(TooManyConnections);
            }
            sessions.online += 1;
            sessions.most_online = sessions.most_online.max(sessions.online);
        }
        let connection = sessions.number();
        let permissions = attach.policy.permissions(&attach.login.identity, Arc::clone(&client_id));
        let window = attach.receive_maximum.min(self.max_inflight);
        let over = |handle: &Handle| handle.any().is_over(now);
        match existing {
            Some(handle) if !attach.clean && !over(&handle) => {
                let (received_until, withdrawal) = {
                    let mut kept = handle.any();
                    // The client is back before its will was due [MQTT-3.1.3-9].
                    if let Some(will) = Self::stop_timers(&mut sessions, &mut kept) {
                        self.discard_will(&will);
                    }
                    if let Some(place) = kept.offline.take() {
                        sessions.offline.remove(&place);
                        self.await_retained_anew(&mut kept);
                    }
                    kept.disconnected_ms = None;
                    handle.set_expiry(&mut kept, attach.expiry_s);
                    handle.hand_over(&mut kept, connection);
                    let received_until = handle.resume(&mut kept, window);
                    kept.login = attach.login.clone();
                    (received_until, self.permit(&handle, &mut kept, permissions))
                };
                if attach.expiry_s == 0 {
                    self.forget_stored(&handle);
                }
                self.tell_of(&handle, withdrawal);
                Ok(Attached { handle, connection, session_present: true, received_until })
            }
            existing => {
                if let Some(handle) = existing {
                    self.discard(&mut sessions, &handle);
                }
                self.make_room(&mut sessions);
                let delivery = Delivery::new(self.queue_limits, window);
                let (login, totals) = (attach.login.clone(), Arc::clone(&self.totals));
                let handle = Arc::new(Handle::new(connection, login, permissions, client_id, delivery, totals));
                handle.set_expiry(&mut handle.any(), attach.expiry_s);
                sessions.by_client.insert(key, Arc::clone(&handle));
                Ok(Attached { handle, connection, session_present: false, received_until: Lsn(0) })
            }
        }
    }

    pub(super) fn make_room(&self, sessions: &mut Sessions) {
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
        will: Option<Arc<Will>>,
    ) -> Option<Arc<Will>> {
        let mut sessions = lock(&self.sessions);
        match handle.owner() {
            owner if owner == connection || handle.is_revoked(connection) => {}
            // Taken over: the session belongs to a newer connection, which also counts for this one. A will that can
            // wait is not due, for the client is back [MQTT-3.1.4-3], unless its session ended with a clean start.
            DISCARDED => return will.map(|will| self.due_now(will)),
            _ => match will {
                Some(will) if will.delay_s > 0 => {
                    self.discard_will(&will);
                    return None;
                }
                will => return will,
            },
        }
        sessions.online -= 1;
        let is_gone = handle.is_revoked(connection) && handle.any().expiry_s == 0;
        if expiry_s == 0 || is_gone {
            self.discard(&mut sessions, handle);
            return will.map(|will| self.due_now(will));
        }
        let now = self.timeline.now();
        let expiry = self.session_expiry(expiry_s);
        let place = sessions.number();
        let mut kept = handle.any();
        kept.offline = Some(place);
        kept.disconnected_ms = Some(self.timeline.wall_ms(now));
        handle.set_expiry(&mut kept, expiry_s);
        handle.hand_over(&mut kept, 0);
        let mut due_now = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay_s));
            let at = now + expiry.map_or(delay, |expiry| delay.min(expiry));
            if at == now {
                due_now = Some(self.due_now(will));
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
    fn stop_timers(sessions: &mut Sessions, kept: &mut Kept) -> Option<Arc<Will>> {
        if let Some(key) = kept.expires.take() {
            sessions.timers.remove(&key);
        }
        let (will, key) = kept.will.take()?;
        sessions.timers.remove(&key);
        Some(will)
    }

    pub(super) fn discard(&self, sessions: &mut Sessions, handle: &Arc<Handle>) {
        sessions.by_client.remove(&(handle.user.clone(), Arc::clone(&handle.client_id)));
        let mut kept = handle.any();
        if let Some(place) = kept.offline.take() {
            sessions.offline.remove(&place);
        }
        // The session has ended, so its will waits no longer [MQTT-3.1.2-8].
        if let Some(will) = Self::stop_timers(sessions, &mut kept) {
            sessions.wills.push(self.due_now(will));
            self.timers_changed.notify_one();
        }
        let returned = handle.hand_over(&mut kept, DISCARDED);
        if handle.is_lasting() {
            self.forget_stored(handle);
        }
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
    pub(crate) fn due(&self) -> (Vec<Arc<Will>>, Option<Instant>) {
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
                    sessions.wills.extend(will.map(|(will, _)| self.due_now(will)));
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
