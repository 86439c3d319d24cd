//! MQTT over a plain socket: packets written and read by hand, right and wrong ones.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::DEADLINE;

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

/// A packet as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

impl Packet {
    /// Packet identifier of an acknowledgement.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// Reason code of a version 5 acknowledgement or DISCONNECT; an absent one is 0.
    pub fn reason(&self) -> u8 {
        let at = if self.kind == DISCONNECT { 0 } else { 2 };
        self.body.get(at).copied().unwrap_or(0)
    }

    /// Topic and payload of a PUBLISH.
    pub fn message(&self, version: Version) -> (String, Vec<u8>) {
        let topic_len = usize::from(self.id());
        let topic = String::from_utf8(self.body[2..2 + topic_len].to_vec()).expect("a UTF-8 topic");
        let mut at = 2 + topic_len + if self.flags >> 1 & 3 > 0 { 2 } else { 0 };
        if version == Version::V5 {
            let (len, used) = variable_integer(&self.body[at..]).expect("a property length");
            at += used + len;
        }
        (topic, self.body[at..].to_vec())
    }
}

/// A PUBLISH taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Packet identifier; 0 for QoS 0.
    pub id: u16,
    pub topic: String,
    pub payload: Vec<u8>,
    /// Encoded properties; empty in 3.1.1.
    pub properties: Vec<u8>,
}

impl Message {
    pub fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    pub fn retained(topic: &str, payload: &str, qos: u8) -> Self {
        Self { retain: true, ..Self::new(topic, payload, qos) }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text")
    }

    fn packet(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            body.push(u8::try_from(self.properties.len()).expect("few properties"));
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }

    fn read(packet: &Packet, version: Version) -> Self {
        let (topic, payload) = packet.message(version);
        let qos = packet.flags >> 1 & 3;
        let mut at = 2 + topic.len();
        let id = if qos > 0 { u16::from_be_bytes([packet.body[at], packet.body[at + 1]]) } else { 0 };
        at += if qos > 0 { 2 } else { 0 };
        let properties = match version {
            Version::V4 => Vec::new(),
            Version::V5 => {
                let (len, used) = variable_integer(&packet.body[at..]).expect("a property length");
                packet.body[at + used..at + used + len].to_vec()
            }
        };
        Self { dup: packet.flags & 8 > 0, qos, retain: packet.flags & 1 > 0, id, topic, payload, properties }
    }
}

/// A CONNECT to be sent: clean, keep-alive 60 s, unless said otherwise.
#[derive(Debug, Clone)]
pub struct Connect {
    version: Version,
    client_id: String,
    flags: u8,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<(Vec<u8>, String, Vec<u8>)>,
    /// What follows the will: user name and password.
    pub rest: Vec<u8>,
}

impl Connect {
    pub fn new(version: Version, client_id: &str) -> Self {
        let (client_id, properties) = (client_id.into(), Vec::new());
        Self { version, client_id, flags: 2, keep_alive: 60, properties, will: None, rest: Vec::new() }
    }

    /// Without the clean flag; for 5.0 with this session expiry interval.
    pub fn kept(mut self, expiry_s: u32) -> Self {
        self.flags &= !2;
        self.expiry(expiry_s)
    }

    /// Session expiry interval of 5.0.
    pub fn expiry(self, expiry_s: u32) -> Self {
        match self.version {
            Version::V4 => self,
            Version::V5 => self.property(0x11, &expiry_s.to_be_bytes()),
        }
    }

    pub fn property(mut self, id: u8, value: &[u8]) -> Self {
        self.properties.push(id);
        self.properties.extend_from_slice(value);
        self
    }

    pub fn client_id(mut self, client_id: &str) -> Self {
        self.client_id = client_id.into();
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn flags(mut self, set: u8) -> Self {
        self.flags |= set;
        self
    }

    pub fn will(mut self, message: &Message) -> Self {
        self.flags |= 4 | message.qos << 3 | u8::from(message.retain) << 5;
        self.will = Some((message.properties.clone(), message.topic.clone(), message.payload.clone()));
        self
    }

    /// After the will, if there is one.
    pub fn user(mut self, name: &str) -> Self {
        self.flags |= 0x80;
        self.rest.extend(string(name));
        self
    }

    /// After the user name, if there is one.
    pub fn password(mut self, password: &str) -> Self {
        self.flags |= 0x40;
        self.rest.extend(string(password));
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = string("MQTT");
        body.extend_from_slice(&[if self.version == Version::V4 { 4 } else { 5 }, self.flags]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        let put_properties = |properties: &[u8], body: &mut Vec<u8>| {
            if self.version == Version::V5 {
                body.push(u8::try_from(properties.len()).expect("few properties"));
                body.extend_from_slice(properties);
            }
        };
        put_properties(&self.properties, &mut body);
        body.extend(string(&self.client_id));
        if let Some((properties, topic, payload)) = &self.will {
            put_properties(properties, &mut body);
            body.extend(string(topic));
            body.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            body.extend_from_slice(payload);
        }
        body.extend_from_slice(&self.rest);
        packet(0x10, &body)
    }

    /// Connects; returns the CONNACK too, whatever it says.
    #[track_caller]
    pub fn open(&self, address: SocketAddr) -> (Client, Packet) {
        let mut client = Client::open(address, self.version).expect("a socket");
        client.send(&self.packet()).expect("the CONNECT can be sent");
        let answer = client.read().unwrap_or_else(|error| panic!("waiting for CONNACK: {error}"));
        assert_eq!(answer.kind, CONNACK, "{answer:?}");
        (client, answer)
    }

    /// Connects over a stream that is open; returns the CONNACK too, whatever it says.
    #[track_caller]
    pub fn open_over(&self, stream: impl Stream + 'static) -> (Client, Packet) {
        let mut client = Client::over(stream, self.version);
        client.send(&self.packet()).expect("the CONNECT can be sent");
        let answer = client.read().unwrap_or_else(|error| panic!("waiting for CONNACK: {error}"));
        assert_eq!(answer.kind, CONNACK, "{answer:?}");
        (client, answer)
    }

    /// The code of the CONNACK; the connection ends if it is not 0.
    #[track_caller]
    pub fn code(&self, address: SocketAddr) -> u8 {
        let (mut client, answer) = self.open(address);
        if answer.body[1] != 0 {
            assert_eq!(client.until_closed(), []);
        }
        answer.body[1]
    }

    /// Connects; says whether the session was present. The CONNECT must be accepted.
    #[track_caller]
    pub fn accepted(&self, address: SocketAddr) -> (Client, bool) {
        let (client, answer) = self.open(address);
        assert_eq!(answer.body[1], 0, "{answer:?}");
        (client, answer.body[0] == 1)
    }
}

/// A whole packet with this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = len >= 128;
        bytes.push((len % 128) as u8 | if more { 128 } else { 0 });
        len /= 128;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// The value and how many bytes it takes; `None` while it is incomplete.
fn variable_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A CONNECT with a clean session and a keep-alive of 60 s.
pub fn connect_packet(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend_from_slice(&[if version == Version::V4 { 4 } else { 5 }, 2, 0, 60]);
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(string(client_id));
    packet(0x10, &body)
}

/// A CONNECT that goes on with the client's session, which outlives the connection.
pub fn resuming_connect_packet(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend_from_slice(&[if version == Version::V4 { 4 } else { 5 }, 0, 0, 60]);
    if version == Version::V5 {
        // A session expiry interval of an hour.
        body.extend_from_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]);
    }
    body.extend(string(client_id));
    packet(0x10, &body)
}

/// A PUBLISH; `id` is left out for QoS 0.
pub fn publish_packet(version: Version, topic: &str, payload: &[u8], qos: u8, dup: bool, id: u16) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(dup) << 3, &body)
}

/// What a client speaks over: a socket, or something over one, with time limits.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connected client.
pub struct Client {
    pub version: Version,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Publishes that came while something else was waited for.
    publishes: VecDeque<Packet>,
    next_id: u16,
}

impl Client {
    /// Connects; the CONNECT must be accepted.
    pub fn connect(address: SocketAddr, version: Version, client_id: &str) -> Self {
        Self::try_connect(address, version, client_id).expect("the connection is accepted")
    }

    pub fn try_connect(address: SocketAddr, version: Version, client_id: &str) -> io::Result<Self> {
        Self::try_connect_with(address, version, &connect_packet(version, client_id))
    }

    /// Connects with this CONNECT.
    pub fn try_connect_with(address: SocketAddr, version: Version, connect: &[u8]) -> io::Result<Self> {
        Self::open(address, version)?.begin(connect)
    }

    /// Connects over a stream that is open.
    pub fn connect_over(stream: impl Stream + 'static, version: Version, client_id: &str) -> io::Result<Self> {
        Self::over(stream, version).begin(&connect_packet(version, client_id))
    }

    fn begin(self, connect: &[u8]) -> io::Result<Self> {
        let mut client = self;
        client.send(connect)?;
        let answer = client.read()?;
        if answer.kind != CONNACK || answer.body.get(1) != Some(&0) {
            return Err(io::Error::other(format!("the CONNECT was answered with {answer:?}")));
        }
        Ok(client)
    }

    /// A socket on which nothing was sent yet.
    pub fn open(address: SocketAddr, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self::over(stream, version))
    }

    /// A stream on which nothing was sent yet.
    pub fn over(stream: impl Stream + 'static, version: Version) -> Self {
        Self { version, stream: Box::new(stream), received: Vec::new(), publishes: VecDeque::new(), next_id: 1 }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next packet.
    pub fn read(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.take() {
                return Ok(packet);
            }
            let mut buffer = [0; 16 * 1024];
            let read = match self.stream.read(&mut buffer) {
                // A signal of another test's child: with a time limit the system does not go on by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }

    /// A packet that was received already.
    pub fn take(&mut self) -> Option<Packet> {
        let first = *self.received.first()?;
        let (len, used) = variable_integer(&self.received[1..])?;
        let end = 1 + used + len;
        if self.received.len() < end {
            return None;
        }
        let body = self.received[1 + used..end].to_vec();
        self.received.drain(..end);
        Some(Packet { kind: first >> 4, flags: first & 15, body })
    }

    /// The next packet of this kind. Publishes before it are kept, anything else is an error.
    #[track_caller]
    pub fn expect(&mut self, kind: u8) -> Packet {
        if kind == PUBLISH
            && let Some(packet) = self.publishes.pop_front()
        {
            return packet;
        }
        loop {
            match self.read().unwrap_or_else(|error| panic!("waiting for packet type {kind}: {error}")) {
                packet if packet.kind == kind => return packet,
                packet if packet.kind == PUBLISH => self.publishes.push_back(packet),
                packet => panic!("waiting for packet type {kind}: {packet:?} came"),
            }
        }
    }

    fn id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id % 65_535 + 1;
        id
    }

    /// Publishes and waits for everything that the QoS asks for; returns the first acknowledgement's reason code.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8) -> u8 {
        let id = self.id();
        let packet = publish_packet(self.version, topic, payload.as_bytes(), qos, false, id);
        self.send(&packet).expect("the publish can be sent");
        if qos == 0 {
            return 0;
        }
        let answer = self.expect(if qos == 1 { PUBACK } else { PUBREC });
        assert_eq!(answer.id(), id);
        let reason = if self.version == Version::V5 { answer.reason() } else { 0 };
        if qos == 2 && reason < 0x80 {
            let release = crate::mqtt::packet(0x62, &id.to_be_bytes());
            self.send(&release).expect("the release can be sent");
            assert_eq!(self.expect(PUBCOMP).id(), id);
        }
        reason
    }

    /// Publishes readings of a device at QoS 1.
    #[track_caller]
    pub fn telemetry(&mut self, device: &str, payload: &str) {
        let reason = self.publish(&format!("devices/{device}/telemetry"), payload, 1);
        assert!(reason < 0x80, "publish refused with {reason:#x}");
    }

    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend(string(filter));
        body.push(qos);
        self.send(&packet(0x82, &body)).expect("the subscription can be sent");
        let answer = self.expect(SUBACK);
        assert_eq!((answer.id(), answer.body.last()), (id, Some(&qos)));
    }

    /// Subscribes to one filter with these options and encoded properties; the answer's code.
    #[track_caller]
    pub fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(u8::try_from(properties.len()).expect("few properties"));
            body.extend_from_slice(properties);
        }
        body.extend(string(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).expect("the subscription can be sent");
        let answer = self.expect(SUBACK);
        assert_eq!(answer.id(), id);
        answer.body.last().copied().expect("a code")
    }

    /// Ends subscriptions; the codes of 5.0.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend(filters.iter().flat_map(|filter| string(filter)));
        self.send(&packet(0xa2, &body)).expect("it can be sent");
        let answer = self.expect(UNSUBACK);
        assert_eq!(answer.id(), id);
        answer.body.get(3..).unwrap_or_default().to_vec()
    }

    /// Publishes and waits for everything that the QoS asks for; the first acknowledgement's reason code.
    #[track_caller]
    pub fn publish_message(&mut self, message: &Message) -> u8 {
        let message = Message { id: self.id(), ..message.clone() };
        self.send(&message.packet(self.version)).expect("the publish can be sent");
        if message.qos == 0 {
            self.ping(); // it has been taken
            return 0;
        }
        let answer = self.expect(if message.qos == 1 { PUBACK } else { PUBREC });
        assert_eq!(answer.id(), message.id);
        let reason = if self.version == Version::V5 { answer.reason() } else { 0 };
        if message.qos == 2 && reason < 0x80 {
            self.acknowledge(PUBREL, message.id);
            assert_eq!(self.expect(PUBCOMP).id(), message.id);
        }
        reason
    }

    /// Sends a PUBACK, PUBREC, PUBREL or PUBCOMP.
    #[track_caller]
    pub fn acknowledge(&mut self, kind: u8, id: u16) {
        let first = kind << 4 | if kind == PUBREL { 2 } else { 0 };
        self.send(&packet(first, &id.to_be_bytes())).expect("the acknowledgement can be sent");
    }

    /// The next PUBLISH, not acknowledged.
    #[track_caller]
    pub fn next(&mut self) -> Message {
        let packet = self.expect(PUBLISH);
        Message::read(&packet, self.version)
    }

    /// The next PUBLISH, acknowledged.
    #[track_caller]
    pub fn take_message(&mut self) -> Message {
        let message = self.next();
        match message.qos {
            0 => {}
            1 => self.acknowledge(PUBACK, message.id),
            _ => {
                self.acknowledge(PUBREC, message.id);
                assert_eq!(self.expect(PUBREL).id(), message.id);
                self.acknowledge(PUBCOMP, message.id);
            }
        }
        message
    }

    /// What was passed on before this call has come, and it was nothing.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.ping();
        assert_eq!(self.publishes, [], "nothing was to come");
    }

    /// Sends DISCONNECT and waits for the end.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(&[0xe0, 0]).expect("it can be sent");
        assert_eq!(self.until_closed(), []);
    }

    /// The connection ends, for 5.0 with this reason code; 3.1.1 is told nothing.
    #[track_caller]
    pub fn expect_closed(&mut self, reason: u8) {
        let packets = self.until_closed();
        match self.version {
            Version::V4 => assert_eq!(packets, []),
            Version::V5 => {
                assert_eq!(packets.len(), 1, "{packets:?}");
                assert_eq!((packets[0].kind, packets[0].reason()), (DISCONNECT, reason));
            }
        }
    }

    /// The next message; QoS 1 and 2 are acknowledged.
    #[track_caller]
    pub fn message(&mut self) -> (String, Vec<u8>) {
        let packet = self.expect(PUBLISH);
        let qos = packet.flags >> 1 & 3;
        if qos > 0 {
            let topic_end = 2 + usize::from(packet.id());
            let id = [packet.body[topic_end], packet.body[topic_end + 1]];
            let first = if qos == 1 { 0x40 } else { 0x50 };
            self.send(&crate::mqtt::packet(first, &id)).expect("the acknowledgement can be sent");
            if qos == 2 {
                self.expect(6);
                self.send(&crate::mqtt::packet(0x70, &id)).expect("the completion can be sent");
            }
        }
        packet.message(self.version)
    }

    /// PINGREQ and its answer: whatever was sent before has been read.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]).expect("the ping can be sent");
        self.expect(PINGRESP);
    }

    /// Publishes a message while its last packets stay with the test.
    #[track_caller]
    pub fn send_publish(&mut self, message: &Message) {
        let bytes = message.packet(self.version);
        self.send(&bytes).expect("the publish can be sent");
    }

    /// Reads until the connection ends; returns the packets before its end.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            match self.read() {
                Ok(packet) => packets.push(packet),
                Err(error) => {
                    let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!timed_out, "the connection was not closed; got {packets:?}");
                    return packets;
                }
            }
        }
    }
}
