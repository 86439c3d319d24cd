//! The stored form of a will.

use bytes::Bytes;

use super::{Owner, WILL};
use crate::access::Proof;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_u64};
use crate::mqtt::session::message::Message;
use crate::mqtt::session::will::Will;
use crate::tls::CertificateId;

const NAMED: u8 = 1;
const CERTIFIED: u8 = 2;
const RETAIN: u8 = 4;
const EXPIRES: u8 = 8;

pub(super) fn encode(will: &Will) -> Vec<u8> {
    let Owner { user, client_id, certified } = &Owner::of(&will.client_id, &will.login);
    let message = &will.message;
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(user.is_some(), NAMED)
        | flag(*certified, CERTIFIED)
        | flag(message.retain, RETAIN)
        | flag(will.expiry_s.is_some(), EXPIRES);
    let mut out = vec![WILL, flags, message.qos];
    put_u64(will.number, &mut out);
    put_u64(u64::from(will.delay_s), &mut out);
    put_u64(will.expiry_s.map_or(0, u64::from), &mut out);
    for text in [user.as_deref().unwrap_or_default(), client_id, &message.topic] {
        put_bytes(text.as_bytes(), &mut out);
    }
    put_bytes(&message.properties, &mut out);
    put_bytes(&message.payload, &mut out);
    match will.login.proof {
        // The certificate may be revoked by the time that the will is due.
        Proof::Certificate(Some(certificate)) => put_bytes(&certificate.to_bytes(), &mut out),
        _ => put_bytes(&[], &mut out),
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Will, DecodeError> {
    let mut reader = FieldReader::new(bytes);
    if reader.u8()? != WILL {
        return Err(DecodeError::Content("it is no will"));
    }
    let (flags, qos) = (reader.u8()?, reader.u8()?);
    if qos > 2 {
        return Err(DecodeError::Content("a QoS that does not exist"));
    }
    let (number, delay_s, expiry_s) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let (user, client_id, topic) = (reader.str()?, reader.str()?, reader.str()?);
    let properties = Bytes::copy_from_slice(reader.bytes()?);
    let payload = Bytes::copy_from_slice(reader.bytes()?);
    let certificate = reader.bytes()?;
    reader.end()?;
    let user = (flags & NAMED > 0).then(|| user.into());
    let owner = Owner { user, client_id: client_id.into(), certified: flags & CERTIFIED > 0 };
    let mut login = owner.to_login();
    if !certificate.is_empty() {
        let certificate = certificate.try_into().map_err(|_| "a certificate that is none")?;
        login.proof = Proof::Certificate(Some(CertificateId::from_bytes(certificate)));
    }
    Ok(Will {
        number,
        login,
        client_id: owner.client_id,
        message: Message { properties, ..Message::new(topic, payload, qos, flags & RETAIN > 0) },
        expiry_s: (flags & EXPIRES > 0).then_some(expiry_s),
        delay_s,
    })
}
