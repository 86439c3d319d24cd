//! Sessions and wills on disk: names, encoding, and loading at a start. Writing is `state::named_values`'s; when to store
//! what is decided in `storing` and `wills`.

mod stored_will;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::core::codec::{FieldReader, put_bytes};
use crate::disk::Disk;
use crate::mqtt::session::stored::StoredSession;
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::session::will::Will;
use crate::state::StateError;
use crate::state::named_values::{NamedValue, NamedValues, NamedValuesOptions, StoreLabels};
use crate::state::open::StoreOptions;
use crate::telemetry::names;

/// Store of sessions and wills, which survives restarts. Clones share it.
#[derive(Debug, Clone)]
pub struct SessionStore(NamedValues<Encoded>);

/// Sessions and wills that a start finds in the store.
#[derive(Debug, Default)]
pub(crate) struct RestoredSessions {
    pub sessions: Vec<StoredSession>,
    /// Wills that were not discarded, by number.
    pub wills: Vec<Will>,
}

/// Name of a session in the store: user and client identifier, separated by NUL. Neither contains one [MQTT-1.5.4-2].
fn name(user: Option<&str>, client_id: &str) -> String {
    format!("{}\0{client_id}", user.unwrap_or_default())
}

impl SessionStore {
    /// Opens the store below `data_dir`, which must open and load within `limit`. A store that is proven to be damaged is moved
    /// aside, logged and counted, and a new one is begun.
    ///
    /// # Errors
    /// The store cannot be opened, although it may be sound. It is left as it is.
    pub fn open(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        limit: Duration,
    ) -> Result<Self, StateError> {
        NamedValues::open(data_dir, NamedValuesOptions::sled(disk, clock, limit)).map(Self)
    }

    /// Opens the store without a thread: it works in [`SessionStore::step`]. For the simulation.
    ///
    /// # Errors
    /// As of [`SessionStore::open`].
    pub fn open_inline(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        store: StoreOptions,
    ) -> Result<Self, StateError> {
        NamedValues::open(data_dir, NamedValuesOptions { disk, clock, store, threads: false }).map(Self)
    }

    /// Does the work that is due in a store without a thread; returns whether there was some.
    pub fn step(&self) -> bool {
        self.0.step()
    }

    /// Loads the stored sessions and wills; to be called once.
    pub(crate) fn load(&self, timeline: &Timeline) -> RestoredSessions {
        let mut restored = RestoredSessions::default();
        for Encoded { name, bytes } in self.0.load() {
            let decoded = match bytes.first() {
                Some(&WILL) => stored_will::decode(&bytes).map(|will| restored.wills.push(will)),
                _ => StoredSession::decode(&bytes, timeline).map(|session| restored.sessions.push(session)),
            };
            if let Err(wrong) = decoded {
                tracing::error!("a stored MQTT session or will cannot be read and has ended: {wrong}");
                self.0.remove(&name);
            }
        }
        restored.wills.sort_by_key(|will| will.number);
        restored
    }

    /// Queues a session for storing that changed at `since` in the store's own time.
    pub(crate) fn put(&self, session: &StoredSession, timeline: &Timeline, since: Duration) {
        let name = name(session.owner.user.as_deref(), &session.owner.client_id).into();
        self.0.put_since(Encoded { name, bytes: session.encode(timeline) }, since);
    }

    /// Queues the removal of a client's session.
    pub(crate) fn remove(&self, user: Option<&str>, client_id: &str) {
        self.0.remove(&name(user, client_id));
    }

    /// Queues a will for storing.
    pub(crate) fn put_will(&self, will: &Will) {
        self.0.put(Encoded { name: will_name(will.number), bytes: stored_will::encode(will) });
    }

    /// Queues the removal of a will.
    pub(crate) fn remove_will(&self, number: u64) {
        self.0.remove(&will_name(number));
    }

    /// The stored values themselves, for their outage and their progress.
    pub(crate) fn values(&self) -> &NamedValues<impl NamedValue + use<>> {
        &self.0
    }
}

/// First byte of a stored will: 128 plus the version of its encoding.
const WILL: u8 = 128 + 1;

/// Name of a will in the store. A session's name contains a NUL and a will's does not, so the two cannot collide.
fn will_name(number: u64) -> Box<str> {
    number.to_string().into()
}

/// Name and encoded bytes of a session or will.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Encoded {
    name: Box<str>,
    bytes: Vec<u8>,
}

impl NamedValue for Encoded {
    const LABELS: StoreLabels = StoreLabels {
        directory: "sessions",
        what: "MQTT sessions and wills",
        moved_aside: names::MQTT_SESSIONS_MOVED_ASIDE,
        failures: names::MQTT_SESSIONS_FAILURES,
        reopened: names::MQTT_SESSIONS_REOPENED,
    };

    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.name.len() + self.bytes.len() + 8);
        put_bytes(self.name.as_bytes(), &mut bytes);
        put_bytes(&self.bytes, &mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = FieldReader::new(bytes);
        let name = reader.str().ok()?.into();
        Some(Self { name, bytes: reader.bytes().ok()?.to_vec() })
    }
}

#[cfg(test)]
mod tests;
