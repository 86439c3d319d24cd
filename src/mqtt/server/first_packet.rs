//! Reads the first packet of a connection, which must be a CONNECT, within bounds on its size.

use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use super::handshake::ConnectRefusal;
use crate::admission::PendingMemory;
use crate::config::MqttConfig;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::codec::{self, ConnectError, ConnectRequest};
use crate::mqtt::wire::frame::{self, NextFrame};
use crate::mqtt::wire::refusal::RefusalReason;

/// First size of the buffer; most CONNECT packets are smaller. The facts that decide how much may follow are in the first 15
/// bytes.
const FIRST_BYTES: usize = 256;

/// Bounds on the size of a CONNECT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectLimits {
    /// Largest CONNECT without a will.
    connect_bytes: usize,
    /// Largest packet of all.
    packet_bytes: usize,
}

impl ConnectLimits {
    pub fn new(config: &MqttConfig) -> Self {
        let packet_bytes = config.max_packet_size_bytes;
        Self { connect_bytes: config.max_connect_size_bytes.min(packet_bytes), packet_bytes }
    }

    /// Checks the size that the packet states, as far as `bytes` tell. `Ok(None)`: more bytes are needed to decide.
    fn judge(&self, bytes: &[u8], total: usize) -> Result<Option<usize>, ConnectRefusal> {
        if total <= self.connect_bytes {
            return Ok(Some(total));
        }
        // The fixed header ends with the first length byte without the continuation bit.
        let header = 2 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
        let Some(prelude) = codec::connect_prelude(bytes.get(header..).unwrap_or_default()) else {
            return Ok(None);
        };
        let reason = match total {
            total if total > self.packet_bytes => RefusalReason::PacketTooLarge,
            _ if prelude.has_will => return Ok(Some(total)),
            _ => RefusalReason::ConnectTooLarge,
        };
        Err(match prelude.version {
            Some(version) => ConnectRefusal::answered(reason, version, None, 0x95),
            None => ConnectRefusal::silent(reason),
        })
    }
}

/// Reads until the first packet is complete; returns it and the bytes that follow it. The buffer grows with the bytes that
/// arrive, not with the length that the packet claims, and is added to `held`.
///
/// # Errors
/// The first packet is not a CONNECT, is too large or cannot be used, or the connection ended or has to give way.
pub(crate) async fn read_connect(
    stream: &mut (impl AsyncRead + Unpin),
    limits: ConnectLimits,
    held: &PendingMemory,
) -> Result<(ConnectRequest, Vec<u8>), ConnectRefusal> {
    // Wiped when it is dropped: there is a password in it.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FIRST_BYTES));
    hold(held, FIRST_BYTES)?;
    loop {
        // There is spare capacity, so this does not grow the buffer.
        match stream.read_buf(&mut *bytes).await {
            Ok(0) | Err(_) => return Err(ConnectRefusal::silent(RefusalReason::ConnectionLost)),
            Ok(_) => {}
        }
        if bytes[0] >> 4 != frame::CONNECT {
            return Err(ConnectRefusal::silent(RefusalReason::NotConnect)); // [MQTT-3.1.0-1]
        }
        let total = match frame::next(&bytes, usize::MAX) {
            Ok(NextFrame::Partial(None)) => continue,
            Ok(NextFrame::Partial(Some(total))) => total,
            Ok(NextFrame::Frame(frame)) => frame.bytes.len(),
            Err(_) => return Err(ConnectRefusal::silent(RefusalReason::Malformed)),
        };
        let Some(total) = limits.judge(&bytes, total)? else { continue };
        if let Ok(NextFrame::Frame(frame)) = frame::next(&bytes, usize::MAX) {
            let connect = codec::decode_connect(&frame).map_err(refuse_packet)?;
            let rest = bytes[total..].to_vec();
            hold(held, total + connect.password.as_ref().map_or(0, |password| password.as_bytes().len()))?;
            return Ok((connect, rest));
        }
        if bytes.len() == bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::new());
            let capacity = total.min(bytes.capacity() * 2);
            hold(held, bytes.capacity() + capacity)?;
            larger.reserve_exact(capacity);
            larger.extend_from_slice(&bytes);
            bytes = larger;
            hold(held, bytes.capacity())?;
        }
    }
}

fn hold(held: &PendingMemory, bytes: usize) -> Result<(), ConnectRefusal> {
    held.set_input(bytes).map_err(|_| ConnectRefusal::silent(RefusalReason::PendingBytes))
}

fn refuse_packet(error: ConnectError) -> ConnectRefusal {
    match error {
        ConnectError::Malformed => ConnectRefusal::silent(RefusalReason::Malformed),
        // Answered in the form that clients of every level understand [MQTT-3.1.2-2].
        ConnectError::Level => {
            ConnectRefusal::answered(RefusalReason::ProtocolVersion, ProtocolVersion::V4, Some(1), 0x84)
        }
        ConnectError::Invalid(_, CloseReason::Malformed) => ConnectRefusal::silent(RefusalReason::Malformed),
        ConnectError::Invalid(version, _) => {
            ConnectRefusal::answered(RefusalReason::ProtocolError, version, None, 0x82)
        }
    }
}

#[cfg(test)]
mod tests;
