//! Sessions and wills on disk. A session that outlives its connection outlives a restart too, and so does every will.
//!
//! This module knows their stored form. Which sessions are stored, and when, is decided in `broker::storing`.

mod stored_will;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Identity, Login, Proof};
use crate::clock::Clock;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::disk::Disk;
use crate::log::Lsn;
use crate::mqtt::session::delivery::StoredDelivery;
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::session::will::Will;
use crate::mqtt::wire::codec::{Filter, RetainHandling};
use crate::state::named_values::{Mark, NamedValue, NamedValues, StoreLabels};
use crate::telemetry::names;

/// The store that keeps sessions and wills over restarts. Clones share it.
#[derive(Debug, Clone)]
pub struct SessionStore(NamedValues<Encoded>);

/// The sessions and wills that a start finds in the store.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub sessions: Vec<StoredSession>,
    /// Wills that were neither published nor cancelled, in the order of their numbers.
    pub wills: Vec<Will>,
}

/// A session as it is stored.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub owner: Owner,
    /// Seconds that the session outlives its connection.
    pub expiry_s: u32,
    /// Time at which the session lost its connection, Unix milliseconds; `None` while it had one.
    pub disconnected_ms: Option<i64>,
    pub subscriptions: Vec<Filter>,
    pub delivery: StoredDelivery,
    /// Packet identifiers of QoS 2 publishes that the client has not released.
    pub received: Vec<u16>,
    /// End of the journal when weir stopped in an orderly way with the session in this state. `None` where weir went on
    /// after this was stored: packet identifiers may have been used since, and must not be trusted.
    pub stopped_at: Option<Lsn>,
}

/// The client that a session or will belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Name of the user; `None` for a client without credentials.
    pub user: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// Whether a certificate identified the client: its user need not be in the users file.
    pub certified: bool,
}

impl Owner {
    /// The owner of the session of a client that logged in like this.
    pub fn of(client_id: &Arc<str>, login: &Login) -> Self {
        let certified = matches!(login.proof, Proof::Certificate(_));
        Self { user: login.identity.user.clone(), client_id: Arc::clone(client_id), certified }
    }

    /// The login of the owner, without roles, which the current policy assigns, and without a password, which is not stored.
    pub fn to_login(&self) -> Login {
        let identity = Identity { user: self.user.clone(), ..Identity::default() };
        Login {
            identity,
            proof: if self.certified { Proof::Certificate(None) } else { Proof::None },
            ..Login::default()
        }
    }

    /// Name of the session in the store. Neither part contains a NUL [MQTT-1.5.4-2], so names are unambiguous.
    fn name(&self) -> String {
        name(self.user.as_deref(), &self.client_id)
    }
}

fn name(user: Option<&str>, client_id: &str) -> String {
    format!("{}\0{client_id}", user.unwrap_or_default())
}

impl SessionStore {
    /// Opens the store below `data_dir`, which must open and load within `limit`. A store that cannot be used is moved
    /// aside, logged and counted, and a new one is begun. Where that fails too the result is `None`: weir goes on without.
    pub fn open(data_dir: &Path, disk: &Arc<dyn Disk>, clock: &dyn Clock, limit: Duration) -> Option<Self> {
        NamedValues::open(data_dir, disk, clock, limit).map(Self)
    }

    /// Takes the sessions and wills that the open found. A second call returns none.
    pub(crate) fn load(&self, timeline: &Timeline) -> Restored {
        let mut restored = Restored::default();
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

    /// Stores a session a moment later.
    pub(crate) fn put(&self, session: &StoredSession, timeline: &Timeline) {
        self.0.put(Encoded { name: session.owner.name().into(), bytes: session.encode(timeline) });
    }

    /// Removes a client's session a moment later.
    pub(crate) fn remove(&self, user: Option<&str>, client_id: &str) {
        self.0.remove(&name(user, client_id));
    }

    /// Stores a will a moment later.
    pub(crate) fn put_will(&self, will: &Will) {
        self.0.put(Encoded { name: will_name(will.number), bytes: stored_will::encode(will) });
    }

    /// Removes a will a moment later.
    pub(crate) fn remove_will(&self, number: u64) {
        self.0.remove(&will_name(number));
    }

    /// Number of sessions and wills that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.0.unwritten()
    }

    /// All changes made so far, to ask [`SessionStore::is_written`] about later.
    pub(crate) fn mark(&self) -> Mark {
        self.0.mark()
    }

    /// Whether all changes up to `mark` are on disk, or will never get there since the store failed.
    pub(crate) fn is_written(&self, mark: Mark) -> bool {
        self.0.is_written(mark)
    }

    /// Waits until all changes made so far are on disk, at most 5 s.
    pub(crate) fn sync(&self) {
        self.0.sync();
    }
}

/// First byte of a stored session: the version of its encoding, below 128.
const SESSION: u8 = 1;
/// First byte of a stored will: 128 plus the version of its encoding.
const WILL: u8 = 128 + 1;

/// Name of a will in the store. It cannot be the name of a session: that contains a NUL.
fn will_name(number: u64) -> Box<str> {
    number.to_string().into()
}

/// The name and the stored form of a session or will.
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

impl StoredSession {
    fn encode(&self, timeline: &Timeline) -> Vec<u8> {
        let Owner { user, client_id, certified } = &self.owner;
        let mut out = vec![SESSION, u8::from(user.is_some()), u8::from(*certified)];
        put_bytes(user.as_deref().unwrap_or_default().as_bytes(), &mut out);
        put_bytes(client_id.as_bytes(), &mut out);
        put_u64(u64::from(self.expiry_s), &mut out);
        out.push(u8::from(self.disconnected_ms.is_some()));
        put_i64(self.disconnected_ms.unwrap_or(0), &mut out);
        out.push(u8::from(self.stopped_at.is_some()));
        put_u64(self.stopped_at.map_or(0, |position| position.0), &mut out);
        put_u64(self.received.len() as u64, &mut out);
        for id in &self.received {
            put_u64(u64::from(*id), &mut out);
        }
        put_u64(self.subscriptions.len() as u64, &mut out);
        for filter in &self.subscriptions {
            put_filter(filter, &mut out);
        }
        self.delivery.encode(timeline, &mut out);
        out
    }

    fn decode(bytes: &[u8], timeline: &Timeline) -> Result<Self, DecodeError> {
        let mut reader = FieldReader::new(bytes);
        if reader.u8()? != SESSION {
            return Err(DecodeError::Content("it is of another version of weir"));
        }
        let (named, certified) = (reader.u8()? == 1, reader.u8()? == 1);
        let user = Some(reader.str()?.into()).filter(|_| named);
        let owner = Owner { user, client_id: reader.str()?.into(), certified };
        let expiry_s = reader.u32()?;
        let offline = reader.u8()? == 1;
        let disconnected_ms = Some(reader.i64()?).filter(|_| offline);
        let orderly = reader.u8()? == 1;
        let stopped_at = Some(Lsn(reader.u64()?)).filter(|_| orderly);
        let count = reader.count()?;
        let id =
            |reader: &mut FieldReader<'_>| u16::try_from(reader.u32()?).map_err(|_| DecodeError::IntegerTooLarge(16));
        let received = (0..count).map(|_| id(&mut reader)).collect::<Result<_, _>>()?;
        let count = reader.count()?;
        let subscriptions = (0..count).map(|_| filter(&mut reader)).collect::<Result<_, _>>()?;
        let delivery = StoredDelivery::decode(&mut reader, timeline)?;
        reader.end()?;
        Ok(Self { owner, expiry_s, disconnected_ms, subscriptions, delivery, received, stopped_at })
    }
}

const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
/// Flag of a subscription: its retained messages were not all queued.
const RETAINED_DUE: u8 = 16;

fn put_filter(filter: &Filter, out: &mut Vec<u8>) {
    put_bytes(filter.filter.as_bytes(), out);
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let retained_due = filter.retain == RetainHandling::Always;
    out.push(
        filter.qos
            | flag(filter.no_local, NO_LOCAL)
            | flag(filter.retain_as_published, RETAIN_AS_PUBLISHED)
            | flag(retained_due, RETAINED_DUE),
    );
    // Identifiers are 1 or more [section 3.8.2.1.2].
    put_u64(filter.identifier.map_or(0, u64::from), out);
}

fn filter(reader: &mut FieldReader<'_>) -> Result<Filter, DecodeError> {
    let filter = reader.str()?.to_owned();
    let flags = reader.u8()?;
    let identifier = Some(reader.u32()?).filter(|identifier| *identifier > 0);
    let qos = flags & 3;
    if qos > 2 {
        return Err(DecodeError::Content("a QoS that does not exist"));
    }
    Ok(Filter {
        filter,
        qos,
        no_local: flags & NO_LOCAL > 0,
        retain_as_published: flags & RETAIN_AS_PUBLISHED > 0,
        // Retained messages were sent with the SUBSCRIBE, unless the flag says that some are still due.
        retain: if flags & RETAINED_DUE > 0 { RetainHandling::Always } else { RetainHandling::Never },
        identifier,
    })
}

#[cfg(test)]
mod tests;
