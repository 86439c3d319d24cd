//! MQTT clients of simulated devices and gateways. They keep unacknowledged messages and resend them.

use std::collections::VecDeque;

use super::answer::{self, BrokerAnswer};
use super::device::{DeviceTraits, Element, SimDevice};
use super::language::{SimLanguage, SimPublish};
use super::ledger::{MessageId, SimLedger, SimMessage};
use super::wire::Wire;
use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, PUBREL, TestConnect, TestPublish, acknowledgement};

/// A session that is kept outlives its connection for an hour of the simulated clock.
const SESSION_EXPIRY_S: u32 = 3_600;
/// Most elements that wait to be sent. At this limit the client takes no further measurements.
const MAX_WAITING: usize = 300;
/// The same for a client that sends each in a message of its own: on a slow disk, more would last longer than results are kept.
const MAX_WAITING_ALONE: usize = 60;
/// Most elements of one array.
const MAX_PACKED: usize = 20;

#[derive(Debug)]
enum SimLink {
    Offline { until_ms: i64 },
    Connecting(Wire),
    Open(Wire),
}

#[derive(Debug)]
struct Outstanding {
    id: MessageId,
    packet_id: u16,
    /// The PUBREC has arrived; only the PUBREL is left.
    received: bool,
    /// Whether the message was sent on this connection.
    on_wire: bool,
}

/// One client with its devices.
#[derive(Debug)]
pub struct SimClient {
    pub name: String,
    /// Topic of messages in weir's own form.
    topic: String,
    language: SimLanguage,
    version: MqttVersion,
    qos: u8,
    clean: bool,
    /// Resends with a new packet identifier and without DUP: weir recognises the sequence numbers.
    renumbers: bool,
    /// Publishes with RETAIN, one message at a time, and publishes the last one again whenever it connects, as a new packet.
    retains: bool,
    /// Last message that was sent.
    last: Option<MessageId>,
    /// When the CONNECT of the present connection was sent.
    connect_ms: i64,
    /// Whether the last message has to be published again before anything else.
    owes_state: bool,
    limit: usize,
    devices: Vec<SimDevice>,
    link: SimLink,
    last_packet_id: u16,
    waiting: VecDeque<Element>,
    outstanding: VecDeque<Outstanding>,
    /// Packet ids on this connection that wait for their first acknowledgement, in the order sent.
    unanswered: VecDeque<u16>,
    incoming: Vec<u8>,
    /// The client takes no further measurements.
    stopped: bool,
}

impl SimClient {
    /// `max_inflight`: weir's receive maximum. `remaps`: the maps change at starts.
    pub fn new(number: usize, max_inflight: u16, remaps: bool, now_ms: i64, random: &mut Random) -> Self {
        let qos = *random.pick(&[1, 1, 1, 1, 2, 2, 0]);
        let name = format!("client-{number}");
        let language = SimLanguage::new(&name, qos, random);
        let has_seq = qos > 0 && random.one_in(2) && language.has_device_numbers(remaps);
        let is_numbered = has_seq || language.numbers_messages();
        let renumbers = is_numbered && qos == 1 && random.one_in(2);
        let is_gateway = random.one_in(4);
        let retains = qos == 1 && !is_gateway && !renumbers && language.packs() && random.one_in(2);
        let traits = DeviceTraits {
            has_seq,
            flags_redelivery: !renumbers,
            is_narrow: language.is_narrow(),
            is_native: matches!(language, SimLanguage::Native),
        };
        let count = if is_gateway { 2 + random.index(3) } else { 1 };
        let devices = (0..count)
            .map(|index| SimDevice::new(language.device_id(&format!("d{number}-{index}")), traits, now_ms, random))
            .filter(|device| qos > 0 || device.has_clock())
            .collect();
        Self {
            name,
            language,
            topic: if is_gateway { "plant/telemetry".into() } else { format!("devices/d{number}-0/telemetry") },
            version: if random.one_in(2) { MqttVersion::V4 } else { MqttVersion::V5 },
            qos,
            clean: random.one_in(2),
            renumbers,
            retains,
            last: None,
            connect_ms: now_ms,
            owes_state: false,
            limit: (1 + random.index(if retains { 1 } else { 64 }))
                .min(usize::from(max_inflight / 2))
                .min(if random.one_in(2) { 8 } else { 64 }),
            devices,
            link: SimLink::Offline { until_ms: now_ms + random.range(0, 3_000) },
            last_packet_id: random.below(65_535) as u16,
            waiting: VecDeque::new(),
            outstanding: VecDeque::new(),
            unanswered: VecDeque::new(),
            incoming: Vec::new(),
            stopped: false,
        }
    }

    /// Whether every measurement is acknowledged.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.outstanding.is_empty()
    }

    /// Whether every message that was sent is acknowledged.
    pub fn has_no_message_outstanding(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// How often counters of the devices have begun again at 0 behind their largest number.
    pub fn wraps(&self) -> u64 {
        self.devices.iter().map(SimDevice::wraps).sum()
    }

    /// Ends the measurements.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes the measurements that are due.
    pub fn measure(&mut self, now_ms: i64, random: &mut Random) {
        let most = if self.language.packs() { MAX_WAITING } else { MAX_WAITING_ALONE };
        if self.stopped || self.waiting.len() >= most {
            return;
        }
        let is_idle = self.is_done();
        if let SimLanguage::Sparkplug(node) = &mut self.language
            && is_idle
            && random.one_in(40)
        {
            node.restart();
            self.devices.iter_mut().for_each(SimDevice::restart_with_node);
        }
        for device in &mut self.devices {
            if device.is_due(now_ms) {
                if is_idle && random.one_in(40) {
                    device.restart(random);
                }
                let element = device.measure(now_ms, random);
                self.waiting.push_back(element);
            }
        }
    }

    /// Connects if it is time; returns the connection.
    pub fn connect(&mut self, now_ms: i64) -> Option<Wire> {
        match self.link {
            SimLink::Offline { until_ms } if until_ms <= now_ms => {}
            _ => return None,
        }
        let wire = Wire::default();
        let connect = TestConnect::new(self.version, &self.name).keep_alive(0);
        wire.send(&if self.clean { connect } else { connect.kept(SESSION_EXPIRY_S) }.packet());
        self.link = SimLink::Connecting(wire.clone());
        self.connect_ms = now_ms;
        self.incoming.clear();
        Some(wire)
    }

    /// The connection, if there is one.
    pub fn wire(&self) -> Option<&Wire> {
        match &self.link {
            SimLink::Offline { .. } => None,
            SimLink::Connecting(wire) | SimLink::Open(wire) => Some(wire),
        }
    }

    /// Breaks the connection; the next attempt is at `until_ms`. `still_arriving`: see [`Wire::break_off`].
    pub fn break_off(&mut self, still_arriving: usize, until_ms: i64) {
        if let Some(wire) = self.wire() {
            wire.break_off(still_arriving);
        }
        self.link = SimLink::Offline { until_ms };
        self.unanswered.clear();
        self.owes_state = false;
        for outstanding in &mut self.outstanding {
            outstanding.on_wire = false;
        }
    }

    /// Sends as many messages as the in-flight limit allows.
    pub fn send(&mut self, ledger: &mut SimLedger, random: &mut Random) {
        let SimLink::Open(wire) = &self.link else { return };
        if self.owes_state {
            return;
        }
        let wire = wire.clone();
        for index in 0..self.outstanding.len() {
            if !self.outstanding[index].on_wire {
                self.send_again(index, &wire, ledger);
            }
        }
        while self.outstanding.len() < self.limit
            && let Some(id) = self.pack(ledger, random)
        {
            let packet_id = if self.qos > 0 { self.next_packet_id() } else { 0 };
            self.publish(id, packet_id, false, &wire, ledger);
            if self.qos > 0 {
                self.outstanding.push_back(Outstanding { id, packet_id, received: false, on_wire: true });
            }
        }
    }

    /// Whether the client has connected and publishes its last message again next: it is retained.
    pub fn owes_state(&self) -> bool {
        self.owes_state
    }

    /// Milliseconds since the CONNECT of the present connection was sent.
    pub fn connected_for_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.connect_ms
    }

    /// The last message, if it is retained.
    pub fn retained(&self) -> Option<MessageId> {
        self.last.filter(|_| self.retains)
    }

    /// Publishes the last message again, as a new packet without DUP, whether it was acknowledged or not.
    pub fn publish_state(&mut self, ledger: &mut SimLedger) {
        self.owes_state = false;
        let (SimLink::Open(wire), Some(id)) = (&self.link, self.last) else { return };
        let wire = wire.clone();
        let packet_id = self.next_packet_id();
        self.outstanding.clear();
        self.publish(id, packet_id, false, &wire, ledger);
        self.outstanding.push_back(Outstanding { id, packet_id, received: false, on_wire: true });
    }

    fn send_again(&mut self, index: usize, wire: &Wire, ledger: &mut SimLedger) {
        self.outstanding[index].on_wire = true;
        let Outstanding { id, received, .. } = self.outstanding[index];
        if received {
            wire.send(&acknowledgement(PUBREL, self.outstanding[index].packet_id));
            return;
        }
        if self.renumbers {
            self.outstanding[index].packet_id = self.next_packet_id();
        }
        self.publish(id, self.outstanding[index].packet_id, !self.renumbers, wire, ledger);
    }

    fn publish(&mut self, id: MessageId, packet_id: u16, dup: bool, wire: &Wire, ledger: &mut SimLedger) {
        let message = &mut ledger.messages[id];
        message.sent += 1;
        let SimClient { version, qos, retains, .. } = &*self;
        let (qos, retain, topic, payload) = (*qos, *retains, &*message.topic, &*message.payload);
        let mut packet = Vec::new();
        TestPublish { topic, payload, qos, dup, retain, id: packet_id, ..TestPublish::default() }
            .write(*version, &mut packet);
        wire.send(&packet);
        self.last = Some(id);
        if qos > 0 {
            self.unanswered.push_back(packet_id);
        }
    }

    /// Packs one waiting element, or an array of several, into a message.
    fn pack(&mut self, ledger: &mut SimLedger, random: &mut Random) -> Option<MessageId> {
        if self.waiting.is_empty() {
            return None;
        }
        let written = match self.language.before() {
            Some(birth) => birth,
            None => self.pack_waiting(random)?,
        };
        Some(ledger.add(SimMessage {
            client: self.name.clone(),
            topic: written.topic,
            payload: written.payload,
            readings: written.readings,
            lossy: self.qos == 0,
            sent: 0,
            acknowledged: false,
        }))
    }

    fn pack_waiting(&mut self, random: &mut Random) -> Option<SimPublish> {
        let mut elements = vec![self.waiting.pop_front()?];
        if self.language.packs() && self.waiting.len() > 2 && random.one_in(2) {
            let count = random.index(MAX_PACKED);
            while elements[0].packs
                && elements.len() < count
                && self.waiting.front().is_some_and(|next| next.packs)
                && elements.iter().map(Element::size).sum::<usize>() < 2_000
            {
                elements.extend(self.waiting.pop_front());
            }
        }
        Some(self.language.write(&self.topic, &self.name, elements))
    }

    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1).max(1);
            let id = self.last_packet_id;
            if self.outstanding.iter().all(|outstanding| outstanding.packet_id != id) {
                return id;
            }
        }
    }

    /// Processes received packets. `Ok(true)`: weir closed the connection.
    pub fn receive(&mut self, ledger: &mut SimLedger) -> Result<bool, String> {
        let Some(wire) = self.wire().cloned() else { return Ok(false) };
        self.incoming.extend(wire.receive());
        while let Some(answer) = answer::take(&mut self.incoming).map_err(|what| format!("{}: {what}", self.name))? {
            self.answer(answer, &wire, ledger).map_err(|what| format!("{}: {what}", self.name))?;
        }
        Ok(wire.ended_by_server())
    }

    fn answer(&mut self, answer: BrokerAnswer, wire: &Wire, ledger: &mut SimLedger) -> Result<(), String> {
        match answer {
            BrokerAnswer::Connack { code: 0, present } if matches!(self.link, SimLink::Connecting(_)) => {
                if present && self.clean {
                    return Err("a clean session is not there already".into());
                }
                self.link = SimLink::Open(wire.clone());
                self.owes_state = self.retained().is_some();
                Ok(())
            }
            BrokerAnswer::Connack { .. } => Err(format!("an unexpected {answer:?}")),
            BrokerAnswer::Puback(packet_id) => {
                let index = self.first_answer(packet_id, 1)?;
                let done = self.outstanding.remove(index);
                ledger.acknowledge(done.map_or(0, |done| done.id));
                Ok(())
            }
            BrokerAnswer::Pubrec(packet_id) => {
                let index = self.first_answer(packet_id, 2)?;
                self.outstanding[index].received = true;
                ledger.acknowledge(self.outstanding[index].id);
                wire.send(&acknowledgement(PUBREL, packet_id));
                Ok(())
            }
            BrokerAnswer::Pubcomp(packet_id) => {
                let released = |outstanding: &Outstanding| outstanding.packet_id == packet_id && outstanding.received;
                let index = self.outstanding.iter().position(released);
                self.outstanding.remove(index.ok_or_else(|| format!("PUBCOMP {packet_id} answers nothing"))?);
                Ok(())
            }
            BrokerAnswer::Disconnect(0x8B | 0x83 | 0x8E) => Ok(()),
            BrokerAnswer::Disconnect(reason) => Err(format!("disconnected with reason {reason:#x}")),
        }
    }

    /// Checks that an acknowledgement is the next one due: they come in the order of the publishes, once each.
    fn first_answer(&mut self, packet_id: u16, qos: u8) -> Result<usize, String> {
        if self.qos != qos || self.unanswered.pop_front() != Some(packet_id) {
            return Err(format!("an acknowledgement of packet {packet_id} out of order"));
        }
        let index = self.outstanding.iter().position(|outstanding| outstanding.packet_id == packet_id);
        index.ok_or_else(|| format!("packet {packet_id} is acknowledged and was not outstanding"))
    }
}
