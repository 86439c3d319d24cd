//! Requests to edge nodes of Sparkplug B to send their births again. A request is an effect of a live message; it is no part of
//! the results, and a replay of the journal sends none.

use crate::core::batch::ReadingOrigin;
use crate::core::codec::put_u64;
use crate::core::operator::Operator;

/// Requests that wait to be sent, at most.
const MAX_WAITING: usize = 256;

/// A request to an edge node to send its births again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebirthRequest {
    /// Topic of the request: `spBv1.0/GROUP/NCMD/NODE`, below the prefix of the tenant.
    pub topic: String,
    /// Payload of the request, Sparkplug B.
    pub payload: Vec<u8>,
}

/// Requests that wait to be sent. Which nodes were asked not long ago is part of what maps remember.
#[derive(Debug, Default)]
pub(super) struct RebirthRequests {
    waiting: Vec<RebirthRequest>,
}

impl Operator {
    /// Requests since the last call.
    #[inline]
    pub fn take_rebirths(&mut self) -> Vec<RebirthRequest> {
        std::mem::take(&mut self.rebirths.waiting)
    }

    /// Notes that an edge node must be asked for its births.
    pub(super) fn ask_rebirth(&mut self, origin: &ReadingOrigin<'_>, group: &str, node: &str) {
        let prefix = origin.tenant.and_then(|tenant| self.settings.rules.topics.tenant(tenant));
        let prefix = prefix.map_or("", |tenant| tenant.prefix.as_str());
        let is_level = |level: &str| !level.is_empty() && !level.contains(['/', '+', '#', '\0']);
        if is_level(group) && is_level(node) && self.rebirths.waiting.len() < MAX_WAITING {
            let topic = format!("{prefix}spBv1.0/{group}/NCMD/{node}");
            let payload = rebirth_command(self.clocks.journal.now_ms);
            self.rebirths.waiting.push(RebirthRequest { topic, payload });
        }
    }
}

/// The payload of one metric, `Node Control/Rebirth` of type Boolean, which is true.
fn rebirth_command(now_ms: i64) -> Vec<u8> {
    const NAME: &[u8] = b"Node Control/Rebirth";
    let mut metric = vec![0x0a, NAME.len() as u8];
    metric.extend_from_slice(NAME);
    put_time(0x18, now_ms, &mut metric);
    metric.extend_from_slice(&[0x20, 11, 0x70, 1]);
    let mut payload = Vec::new();
    put_time(0x08, now_ms, &mut payload);
    payload.extend_from_slice(&[0x12, metric.len() as u8]);
    payload.extend_from_slice(&metric);
    payload
}

/// Appends a field with this tag that holds a time.
fn put_time(tag: u8, time_ms: i64, out: &mut Vec<u8>) {
    out.push(tag);
    // Protocol buffers write integers as LEB128.
    put_u64(u64::try_from(time_ms).unwrap_or(0), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_sparkplug_b() {
        let payload = rebirth_command(300);
        assert_eq!(payload, b"\x08\xac\x02\x12\x1d\x0a\x14Node Control/Rebirth\x18\xac\x02\x20\x0b\x70\x01");
    }
}
