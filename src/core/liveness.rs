//! Whether devices are online, as maps read it from the topics on which devices, or the wills of their clients, say so. It
//! moves no watermark and counts as no sign of life.

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64};
use crate::core::device::Slot;
use crate::core::formats::MappedStatus;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::problem::ReadingProblem;
use crate::core::validate;

/// Bytes of the topic that are kept.
const MAX_TOPIC_BYTES: usize = 256;

/// Whether a device is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLiveness {
    /// Whether it is online.
    pub online: bool,
    /// Arrival time of the message from which on it is so, Unix milliseconds.
    pub since_ms: i64,
    /// Topic of that message, cut after 256 bytes.
    pub topic: Box<str>,
}

impl DeviceLiveness {
    /// Appends the stored form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.online));
        put_i64(self.since_ms, out);
        put_bytes(self.topic.as_bytes(), out);
    }

    /// Reads the stored form.
    pub(super) fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let online = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Content("liveness")),
        };
        Ok(Self { online, since_ms: reader.i64()?, topic: reader.str()?.into() })
    }
}

/// The beginning of a topic that is kept.
pub(super) fn kept_topic(topic: &str) -> &str {
    let end = (0..=MAX_TOPIC_BYTES.min(topic.len())).rev().find(|&end| topic.is_char_boundary(end));
    end.and_then(|end| topic.get(..end)).unwrap_or_default()
}

impl Operator {
    /// Notes what a message says about the liveness of a device. Its device is created if there is room for it. What must not
    /// be said is rejected.
    pub(super) fn note_status(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        status: &MappedStatus<'_>,
        out: &mut dyn Collector,
    ) {
        let id = status.device.as_ref();
        let problem = match batch.topic_device {
            _ if !validate::is_device_id(id) => Some(ReadingProblem::InvalidDeviceId(id)),
            Some(own) if own != id => Some(ReadingProblem::NotOwnDevice { own, payload: id }),
            _ if !self.may_send(batch.tenant, id) => Some(ReadingProblem::UnknownDevice(id)),
            _ => None,
        };
        if let Some(problem) = problem {
            self.totals.received += 1;
            self.reject(origin, 0, None, (Some(id).filter(|id| validate::is_device_id(id)), None), problem, out);
            return;
        }
        let known = self.find_device(batch.tenant, id);
        let Some(slot) = known.or_else(|| self.create(batch.tenant, id, batch.user).ok()) else { return };
        self.set_liveness(slot, status.online, origin.publish.topic);
    }

    /// Notes that a device is offline with its edge node, if the device is known and the client may speak for it.
    pub(super) fn note_offline(&mut self, batch: &BatchContext<'_>, origin: &ReadingOrigin<'_>, id: &str) {
        let is_own = batch.topic_device.is_none_or(|own| own == id);
        if is_own && let Some(slot) = self.find_device(batch.tenant, id) {
            self.set_liveness(slot, false, origin.publish.topic);
        }
    }

    fn set_liveness(&mut self, slot: Slot, online: bool, topic: &str) {
        self.about_to_change(self.devices[slot].group);
        let (now_ms, awake_ms) = (self.clocks.journal.now_ms, self.clocks.journal.awake_ms());
        let device = &mut self.devices[slot];
        if device.series.is_empty() {
            // Nothing else keeps a device that has sent no reading.
            (device.last_arrival_ms, device.last_awake_ms) = (now_ms, awake_ms);
        }
        let before = device.rare.liveness.as_ref().map(|liveness| liveness.online);
        if before == Some(online) {
            return;
        }
        let liveness = DeviceLiveness { online, since_ms: now_ms, topic: kept_topic(topic).into() };
        device.rare.fields_mut().liveness = Some(Box::new(liveness));
        self.offline = self.offline + usize::from(!online) - usize::from(before == Some(false));
    }

    /// Whether a device said that it is offline: 1, else 0.
    pub(super) fn offline_count(liveness: Option<&DeviceLiveness>) -> usize {
        liveness.map_or(0, |liveness| usize::from(!liveness.online))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_reads_back() {
        let liveness = DeviceLiveness { online: true, since_ms: -3, topic: "tele/x/LWT".into() };
        let mut bytes = Vec::new();
        liveness.encode(&mut bytes);
        assert_eq!(DeviceLiveness::decode(&mut FieldReader::new(&bytes)), Ok(liveness));
        for len in 0..bytes.len() {
            assert!(DeviceLiveness::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        assert!(DeviceLiveness::decode(&mut FieldReader::new(&[2, 0, 0])).is_err());
    }

    #[test]
    fn long_topics_are_cut_between_characters() {
        assert_eq!(kept_topic("a/b"), "a/b");
        assert_eq!(kept_topic(&"é".repeat(200)).len(), 256);
        assert_eq!(kept_topic(&format!("x{}", "é".repeat(200))).len(), 255);
    }
}
