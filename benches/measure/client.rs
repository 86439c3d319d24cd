//! MQTT clients on tokio, many at once.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::v5;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;

/// A PUBACK of MQTT 3.1.1 is four bytes long.
pub const PUBACK_BYTES: usize = 4;

/// Seconds; nothing here is silent for longer.
const KEEP_ALIVE: u16 = 60;
/// Publishes written at once at most: about what fits into one segment of a loopback connection.
const BURST: u64 = 256;
/// Received bytes that a client has room for at first.
const RECEIVE_BYTES: usize = 512;

/// A CONNECT of 3.1.1 with a clean session.
pub fn connect_packet(client_id: &str, login: Option<(&str, &str)>) -> BytesMut {
    let mut connect = v4::Connect::new(client_id);
    connect.keep_alive = KEEP_ALIVE;
    if let Some((user, password)) = login {
        connect.set_login(user, password);
    }
    let mut packet = BytesMut::new();
    connect.write(&mut packet).expect("a CONNECT that can be written");
    packet
}

/// A CONNECT of 5.0 with a clean start.
pub fn connect_packet_v5(client_id: &str) -> BytesMut {
    let client_id = client_id.to_owned();
    let connect = v5::Connect { keep_alive: KEEP_ALIVE, client_id, clean_start: true, properties: None };
    let mut packet = BytesMut::new();
    connect.write(&None, &None, &mut packet).expect("a CONNECT that can be written");
    packet
}

/// A packet as it came.
#[derive(Debug)]
pub struct Packet {
    first: u8,
    body: Bytes,
}

impl Packet {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    pub fn is_retained(&self) -> bool {
        self.first & 1 > 0
    }

    /// Packet identifier of a PUBLISH; `None` at QoS 0.
    pub fn publish_id(&self) -> Option<u16> {
        let topic_end = 2 + usize::from((&self.body[..2]).get_u16());
        (self.first >> 1 & 3 > 0).then(|| (&self.body[topic_end..]).get_u16())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "weir closed the connection")
}

fn unexpected(packet: &Packet) -> io::Error {
    io::Error::other(format!("unexpected {packet:?}"))
}

/// A connected client.
pub struct Client {
    stream: TcpStream,
    received: BytesMut,
}

impl Client {
    /// Connects; the CONNECT must be accepted.
    pub async fn connect(address: SocketAddr, packet: &[u8]) -> io::Result<Self> {
        let (client, code) = Self::open(address, packet).await?;
        if code == 0 { Ok(client) } else { Err(io::Error::other(format!("the CONNECT was refused: {code}"))) }
    }

    /// Connects; returns the code of the CONNACK too.
    pub async fn open(address: SocketAddr, packet: &[u8]) -> io::Result<(Self, u8)> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, received: BytesMut::with_capacity(RECEIVE_BYTES) };
        client.send(packet).await?;
        let answer = client.packet().await?;
        if answer.kind() == CONNACK { Ok((client, answer.body[1])) } else { Err(unexpected(&answer)) }
    }

    pub async fn send(&mut self, packets: &[u8]) -> io::Result<()> {
        self.stream.write_all(packets).await
    }

    /// The next packet.
    pub async fn packet(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.received_packet() {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(closed());
            }
        }
    }

    /// A packet that has come already.
    pub fn received_packet(&mut self) -> Option<Packet> {
        let header = mqttbytes::check(self.received.iter(), usize::MAX).ok()?;
        let mut body = self.received.split_to(header.frame_length()).freeze();
        let first = body.get_u8();
        // The remaining length ends with the first byte below 128.
        while body.get_u8() >= 128 {}
        Some(Packet { first, body })
    }

    /// Sends one PUBLISH of QoS 1; how long until its PUBACK was read.
    pub async fn publish(&mut self, packet: &[u8]) -> io::Result<Duration> {
        let started = Instant::now();
        self.send(packet).await?;
        let answer = self.packet().await?;
        if answer.kind() == PUBACK { Ok(started.elapsed()) } else { Err(unexpected(&answer)) }
    }

    /// Publishes `messages` at QoS 1 with at most `in_flight` unacknowledged; `write` appends the one with this number
    /// and packet identifier. `acknowledged` is right however it ends.
    pub async fn publish_all(
        &mut self,
        messages: u64,
        in_flight: u64,
        acknowledged: &mut u64,
        mut write: impl FnMut(u64, u16, &mut Vec<u8>),
    ) -> io::Result<()> {
        let packet_id = |number: u64| (number % in_flight + 1) as u16;
        let (mut sent, mut out) = (0, Vec::new());
        while *acknowledged < messages {
            let end = messages.min(*acknowledged + in_flight).min(sent + BURST);
            out.clear();
            for number in sent..end {
                write(number, packet_id(number), &mut out);
            }
            sent = end;
            self.send(&out).await?;
            self.received.reserve(BURST as usize * PUBACK_BYTES);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(closed());
            }
            while self.received.len() >= PUBACK_BYTES {
                let answer = self.received.get_u32();
                let expected = 0x4002 << 16 | u32::from(packet_id(*acknowledged));
                assert_eq!(answer, expected, "PUBACKs come in the order of the publishes");
                *acknowledged += 1;
            }
        }
        Ok(())
    }
}

/// Opens connections, `together` at a time; all CONNECTs must be accepted.
pub async fn connect_all(address: SocketAddr, packets: Vec<BytesMut>, together: usize) -> Vec<Client> {
    let (mut open, mut opening, mut packets) = (Vec::new(), JoinSet::new(), packets.into_iter());
    loop {
        while opening.len() < together
            && let Some(packet) = packets.next()
        {
            opening.spawn(async move { Client::connect(address, &packet).await });
        }
        let Some(client) = opening.join_next().await else { return open };
        open.push(client.expect("a client does not panic").expect("a connection"));
    }
}
