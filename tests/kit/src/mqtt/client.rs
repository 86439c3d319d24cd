//! A blocking MQTT client whose packets the test controls.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::message::TestMessage;
use super::packet::{
    ReceivedPacket, acknowledgement, packet, publish_packet, put_bytes, put_properties, subscribe_packet,
};
use super::{
    CONNACK, DISCONNECT, MqttVersion, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK,
    connect_packet,
};
use crate::wait::DEADLINE;

/// The byte stream of a client: a socket, TLS or WebSocket, with read and write time limits.
pub trait ClientStream: Read + Write + Send {}

impl<S: Read + Write + Send> ClientStream for S {}

/// A connected client.
pub struct TestClient {
    pub version: MqttVersion,
    stream: Box<dyn ClientStream>,
    received: Vec<u8>,
    /// Received publishes that the test has not asked for yet.
    publishes: VecDeque<ReceivedPacket>,
    next_id: u16,
}

impl TestClient {
    /// Connects; the CONNECT must be accepted.
    pub fn connect(address: SocketAddr, version: MqttVersion, client_id: &str) -> Self {
        Self::try_connect(address, version, client_id).expect("the connection is accepted")
    }

    pub fn try_connect(address: SocketAddr, version: MqttVersion, client_id: &str) -> io::Result<Self> {
        Self::try_connect_with(address, version, &connect_packet(version, client_id))
    }

    /// Connects with this CONNECT.
    pub fn try_connect_with(address: SocketAddr, version: MqttVersion, connect: &[u8]) -> io::Result<Self> {
        Self::open(address, version)?.begin(connect)
    }

    /// Connects over an open stream.
    pub fn connect_over(
        stream: impl ClientStream + 'static,
        version: MqttVersion,
        client_id: &str,
    ) -> io::Result<Self> {
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

    /// Opens a socket without sending a CONNECT.
    pub fn open(address: SocketAddr, version: MqttVersion) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self::over(stream, version))
    }

    /// A client over an open stream, without sending a CONNECT.
    pub fn over(stream: impl ClientStream + 'static, version: MqttVersion) -> Self {
        Self { version, stream: Box::new(stream), received: Vec::new(), publishes: VecDeque::new(), next_id: 1 }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next packet.
    pub fn read(&mut self) -> io::Result<ReceivedPacket> {
        loop {
            if let Some(packet) = self.take() {
                return Ok(packet);
            }
            let mut buffer = [0; 16 * 1024];
            let read = match self.stream.read(&mut buffer) {
                // A signal interrupts a read with a time limit, such as SIGCHLD of another test.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }

    /// The next packet, if it has been received completely.
    pub fn take(&mut self) -> Option<ReceivedPacket> {
        ReceivedPacket::take(&mut self.received)
    }

    /// Reads until a packet of this type arrives. Publishes before it are kept; any other packet fails the test.
    #[track_caller]
    pub fn expect(&mut self, kind: u8) -> ReceivedPacket {
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

    /// Publishes and completes the exchange of the QoS; returns the reason code of the first acknowledgement.
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
        let reason = if self.version == MqttVersion::V5 { answer.reason() } else { 0 };
        if qos == 2 && reason < 0x80 {
            self.acknowledge(PUBREL, id);
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
        assert_eq!(self.subscribe_with(filter, qos, &[]), qos, "the code of the SUBACK");
    }

    /// Subscribes to one filter with these options and encoded properties; returns the code of the SUBACK.
    #[track_caller]
    pub fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let id = self.id();
        let packet = subscribe_packet(self.version, id, [filter], options, properties);
        self.send(&packet).expect("the subscription can be sent");
        let answer = self.expect(SUBACK);
        assert_eq!(answer.id(), id);
        answer.body.last().copied().expect("a code")
    }

    /// Unsubscribes; returns the codes of the UNSUBACK of MQTT 5.0.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        put_properties(self.version, &[], &mut body);
        for filter in filters {
            put_bytes(filter.as_bytes(), &mut body);
        }
        self.send(&packet(0xa2, &body)).expect("it can be sent");
        let answer = self.expect(UNSUBACK);
        assert_eq!(answer.id(), id);
        answer.body.get(3..).unwrap_or_default().to_vec()
    }

    /// Publishes a message and completes the exchange of the QoS; returns the reason code of the first acknowledgement.
    #[track_caller]
    pub fn publish_message(&mut self, message: &TestMessage) -> u8 {
        let message = TestMessage { id: self.id(), ..message.clone() };
        self.send(&message.packet(self.version)).expect("the publish can be sent");
        if message.qos == 0 {
            self.ping(); // it has been taken
            return 0;
        }
        let answer = self.expect(if message.qos == 1 { PUBACK } else { PUBREC });
        assert_eq!(answer.id(), message.id);
        let reason = if self.version == MqttVersion::V5 { answer.reason() } else { 0 };
        if message.qos == 2 && reason < 0x80 {
            self.acknowledge(PUBREL, message.id);
            assert_eq!(self.expect(PUBCOMP).id(), message.id);
        }
        reason
    }

    /// Sends a PUBACK, PUBREC, PUBREL or PUBCOMP.
    #[track_caller]
    pub fn acknowledge(&mut self, kind: u8, id: u16) {
        self.send(&acknowledgement(kind, id)).expect("the acknowledgement can be sent");
    }

    /// The next PUBLISH, not acknowledged.
    #[track_caller]
    pub fn next_message(&mut self) -> TestMessage {
        let packet = self.expect(PUBLISH);
        TestMessage::read(&packet, self.version)
    }

    /// The next PUBLISH, acknowledged.
    #[track_caller]
    pub fn take_message(&mut self) -> TestMessage {
        let message = self.next_message();
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

    /// Checks that no publish arrives: the PINGRESP comes after everything that was passed on before.
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

    /// Checks that weir closes the connection, with MQTT 5.0 after a DISCONNECT of this reason code.
    #[track_caller]
    pub fn expect_closed(&mut self, reason: u8) {
        let packets = self.until_closed();
        match self.version {
            MqttVersion::V4 => assert_eq!(packets, []),
            MqttVersion::V5 => {
                assert_eq!(packets.len(), 1, "{packets:?}");
                assert_eq!((packets[0].kind, packets[0].reason()), (DISCONNECT, reason));
            }
        }
    }

    /// Topic and payload of the next PUBLISH, acknowledged.
    #[track_caller]
    pub fn message(&mut self) -> (String, Vec<u8>) {
        let TestMessage { topic, payload, .. } = self.take_message();
        (topic, payload)
    }

    /// Sends PINGREQ and waits for PINGRESP: weir has then read everything sent before.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]).expect("the ping can be sent");
        self.expect(PINGRESP);
    }

    /// Sends a PUBLISH without waiting for the acknowledgement.
    #[track_caller]
    pub fn send_publish(&mut self, message: &TestMessage) {
        let bytes = message.packet(self.version);
        self.send(&bytes).expect("the publish can be sent");
    }

    /// Reads until the connection ends; returns the packets before its end.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<ReceivedPacket> {
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
