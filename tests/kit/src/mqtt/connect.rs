//! Builds CONNECT packets and opens connections with them.

use std::net::SocketAddr;

use super::client::{ClientStream, TestClient};
use super::message::TestMessage;
use super::packet::{ReceivedPacket, packet, put_bytes, put_properties, string};
use super::{CONNACK, MqttVersion};

/// A CONNECT to be sent. By default the session is clean and the keep-alive 60 s.
#[derive(Debug, Clone)]
pub struct ConnectPacket {
    version: MqttVersion,
    client_id: String,
    flags: u8,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<(Vec<u8>, String, Vec<u8>)>,
    /// Fields after the will: user name and password.
    pub rest: Vec<u8>,
}

impl ConnectPacket {
    pub fn new(version: MqttVersion, client_id: &str) -> Self {
        let (client_id, properties) = (client_id.into(), Vec::new());
        Self { version, client_id, flags: 2, keep_alive: 60, properties, will: None, rest: Vec::new() }
    }

    /// Keeps the session: no clean flag, and for MQTT 5.0 this session expiry interval.
    pub fn kept(mut self, expiry_s: u32) -> Self {
        self.flags &= !2;
        self.expiry(expiry_s)
    }

    /// Sets the session expiry interval of MQTT 5.0.
    pub fn expiry(self, expiry_s: u32) -> Self {
        match self.version {
            MqttVersion::V4 => self,
            MqttVersion::V5 => self.property(0x11, &expiry_s.to_be_bytes()),
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

    pub fn will(mut self, message: &TestMessage) -> Self {
        self.flags |= 4 | message.qos << 3 | u8::from(message.retain) << 5;
        self.will = Some((message.properties.clone(), message.topic.clone(), message.payload.clone()));
        self
    }

    /// Adds a user name. Call it after [`Self::will`].
    pub fn user(mut self, name: &str) -> Self {
        self.flags |= 0x80;
        self.rest.extend(string(name));
        self
    }

    /// Adds a password. Call it after [`Self::user`].
    pub fn password(mut self, password: &str) -> Self {
        self.flags |= 0x40;
        self.rest.extend(string(password));
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = string("MQTT");
        body.extend_from_slice(&[if self.version == MqttVersion::V4 { 4 } else { 5 }, self.flags]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        put_properties(self.version, &self.properties, &mut body);
        put_bytes(self.client_id.as_bytes(), &mut body);
        if let Some((properties, topic, payload)) = &self.will {
            put_properties(self.version, properties, &mut body);
            put_bytes(topic.as_bytes(), &mut body);
            put_bytes(payload, &mut body);
        }
        body.extend_from_slice(&self.rest);
        packet(0x10, &body)
    }

    /// Connects; returns the client and the CONNACK, accepted or not.
    #[track_caller]
    pub fn open(&self, address: SocketAddr) -> (TestClient, ReceivedPacket) {
        let mut client = TestClient::open(address, self.version).expect("a socket");
        client.send(&self.packet()).expect("the CONNECT can be sent");
        let answer = client.read().unwrap_or_else(|error| panic!("waiting for CONNACK: {error}"));
        assert_eq!(answer.kind, CONNACK, "{answer:?}");
        (client, answer)
    }

    /// Connects over an open stream; returns the client and the CONNACK, accepted or not.
    #[track_caller]
    pub fn open_over(&self, stream: impl ClientStream + 'static) -> (TestClient, ReceivedPacket) {
        let mut client = TestClient::over(stream, self.version);
        client.send(&self.packet()).expect("the CONNECT can be sent");
        let answer = client.read().unwrap_or_else(|error| panic!("waiting for CONNACK: {error}"));
        assert_eq!(answer.kind, CONNACK, "{answer:?}");
        (client, answer)
    }

    /// Connects; returns the code of the CONNACK. Checks that a refused connection is closed.
    #[track_caller]
    pub fn code(&self, address: SocketAddr) -> u8 {
        let (mut client, answer) = self.open(address);
        if answer.body[1] != 0 {
            assert_eq!(client.until_closed(), []);
        }
        answer.body[1]
    }

    /// Connects; returns the client and whether the session was present. The CONNECT must be accepted.
    #[track_caller]
    pub fn accepted(&self, address: SocketAddr) -> (TestClient, bool) {
        let (client, answer) = self.open(address);
        assert_eq!(answer.body[1], 0, "{answer:?}");
        (client, answer.body[0] == 1)
    }
}
