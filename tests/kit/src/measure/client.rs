//! MQTT clients on tokio, many at once.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::mqtt::{CONNACK, ConnectPacket, MqttVersion, PUBACK, ReceivedPacket};

/// A PUBACK of MQTT 3.1.1 is four bytes long.
pub const PUBACK_BYTES: usize = 4;

/// Most publishes of one write: about what fits into one segment of a loopback connection.
const BURST: u64 = 256;
/// Initial size of the receive buffer.
const RECEIVE_BYTES: usize = 512;

/// A CONNECT of 3.1.1 with a clean session.
pub fn connect_packet(client_id: &str, login: Option<(&str, &str)>) -> Vec<u8> {
    let connect = ConnectPacket::new(MqttVersion::V4, client_id);
    match login {
        Some((user, password)) => connect.user(user).password(password).packet(),
        None => connect.packet(),
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "weir closed the connection")
}

fn unexpected(packet: &ReceivedPacket) -> io::Error {
    io::Error::other(format!("unexpected {packet:?}"))
}

/// A connected client.
pub struct LoadClient {
    stream: TcpStream,
    received: BytesMut,
}

impl LoadClient {
    /// Connects; the CONNECT must be accepted.
    pub async fn connect(address: SocketAddr, packet: &[u8]) -> io::Result<Self> {
        let (client, code) = Self::open(address, packet).await?;
        if code == 0 { Ok(client) } else { Err(io::Error::other(format!("the CONNECT was refused: {code}"))) }
    }

    /// Connects; returns the client and the code of the CONNACK.
    pub async fn open(address: SocketAddr, packet: &[u8]) -> io::Result<(Self, u8)> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, received: BytesMut::with_capacity(RECEIVE_BYTES) };
        client.send(packet).await?;
        let answer = client.packet().await?;
        if answer.kind == CONNACK { Ok((client, answer.body[1])) } else { Err(unexpected(&answer)) }
    }

    pub async fn send(&mut self, packets: &[u8]) -> io::Result<()> {
        self.stream.write_all(packets).await
    }

    /// The next packet.
    pub async fn packet(&mut self) -> io::Result<ReceivedPacket> {
        loop {
            if let Some(packet) = self.received_packet() {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(closed());
            }
        }
    }

    /// The next packet, if it has been received completely.
    pub fn received_packet(&mut self) -> Option<ReceivedPacket> {
        let (packet, len) = ReceivedPacket::first_of(&self.received)?;
        self.received.advance(len);
        Some(packet)
    }

    /// Sends one PUBLISH of QoS 1; returns the time until its PUBACK was read.
    pub async fn publish(&mut self, packet: &[u8]) -> io::Result<Duration> {
        let started = Instant::now();
        self.send(packet).await?;
        let answer = self.packet().await?;
        if answer.kind == PUBACK { Ok(started.elapsed()) } else { Err(unexpected(&answer)) }
    }

    /// Publishes `messages` at QoS 1 with at most `in_flight` unacknowledged; `write` appends the one with this number
    /// and packet identifier. `acknowledged` is correct after an error, too.
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
pub async fn connect_all(address: SocketAddr, packets: Vec<Vec<u8>>, together: usize) -> Vec<LoadClient> {
    let (mut open, mut opening, mut packets) = (Vec::new(), JoinSet::new(), packets.into_iter());
    loop {
        while opening.len() < together
            && let Some(packet) = packets.next()
        {
            opening.spawn(async move { LoadClient::connect(address, &packet).await });
        }
        let Some(client) = opening.join_next().await else { return open };
        open.push(client.expect("a client does not panic").expect("a connection"));
    }
}
