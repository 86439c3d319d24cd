//! The stored form of a session: its fields and their encoding.

use std::sync::Arc;

use super::delivery::StoredDelivery;
use super::timeline::Timeline;
use crate::access::{Identity, Login, Proof};
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::log::Lsn;
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};

/// First byte of a stored session: the version of its encoding. Versions of sessions are below 128, those of wills above.
pub(in crate::mqtt) const SESSION: u8 = 1;

/// A session in its stored form.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub owner: SessionOwner,
    /// Seconds that the session outlives its connection.
    pub expiry_s: u32,
    /// Unix time in milliseconds at which the session lost its connection; `None` if it had one when it was stored.
    pub disconnected_ms: Option<i64>,
    pub subscriptions: Vec<TopicSubscription>,
    pub delivery: StoredDelivery,
    /// Packet identifiers of QoS 2 publishes that the client has not released.
    pub received: Vec<u16>,
    /// End of the journal at an orderly stop; `None` where the session was stored while weir ran, so that packet identifiers
    /// may have been used since.
    pub stopped_at: Option<Lsn>,
}

/// Client that a stored session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionOwner {
    /// User of the client; `None` for a client without credentials.
    pub user: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// Whether a client certificate proved the user. Such a user need not be in the users file.
    pub certified: bool,
}

impl SessionOwner {
    /// The owner of the session of a client with this login.
    pub fn of(client_id: &Arc<str>, login: &Login) -> Self {
        let certified = matches!(login.proof, Proof::Certificate(_));
        Self { user: login.identity.user.clone(), client_id: Arc::clone(client_id), certified }
    }

    /// Identity of the client. The access policy adds its roles; passwords are not stored.
    pub fn to_login(&self) -> Login {
        let identity = Identity { user: self.user.clone(), ..Identity::default() };
        Login {
            identity,
            proof: if self.certified { Proof::Certificate(None) } else { Proof::None },
            ..Login::default()
        }
    }
}

impl StoredSession {
    /// Encodes the session. Instants are stored as Unix times of `timeline`.
    pub fn encode(&self, timeline: &Timeline) -> Vec<u8> {
        let SessionOwner { user, client_id, certified } = &self.owner;
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

    /// Decodes a session.
    ///
    /// # Errors
    /// The bytes are not an encoded session of this version.
    pub fn decode(bytes: &[u8], timeline: &Timeline) -> Result<Self, DecodeError> {
        let mut reader = FieldReader::new(bytes);
        if reader.u8()? != SESSION {
            return Err(DecodeError::Content("it is of another version of weir"));
        }
        let (named, certified) = (reader.u8()? == 1, reader.u8()? == 1);
        let user = Some(reader.str()?.into()).filter(|_| named);
        let owner = SessionOwner { user, client_id: reader.str()?.into(), certified };
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
/// Flag of a subscription whose retained messages were not all queued.
const RETAINED_DUE: u8 = 16;

fn put_filter(filter: &TopicSubscription, out: &mut Vec<u8>) {
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

fn filter(reader: &mut FieldReader<'_>) -> Result<TopicSubscription, DecodeError> {
    let filter = reader.str()?.to_owned();
    let flags = reader.u8()?;
    let identifier = Some(reader.u32()?).filter(|identifier| *identifier > 0);
    let qos = flags & 3;
    if qos > 2 {
        return Err(DecodeError::Content("a QoS that does not exist"));
    }
    Ok(TopicSubscription {
        filter,
        qos,
        no_local: flags & NO_LOCAL > 0,
        retain_as_published: flags & RETAIN_AS_PUBLISHED > 0,
        // Retained messages were sent at the subscribe, or are still to be sent.
        retain: if flags & RETAINED_DUE > 0 { RetainHandling::Always } else { RetainHandling::Never },
        identifier,
    })
}
