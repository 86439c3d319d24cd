//! One client that waits for each PUBACK. It blocks: that adds the least time of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::client::PUBACK_BYTES;
use super::reading::{BenchReading, METRICS, now_ms};

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A connected client with one publish in flight.
pub struct RoundTrips<'a> {
    stream: TcpStream,
    device: &'a str,
    seq: u64,
    out: Vec<u8>,
    payload: String,
}

impl<'a> RoundTrips<'a> {
    /// Connects with this packet of 3.1.1, which must be accepted.
    pub fn connect(address: SocketAddr, packet: &[u8], device: &'a str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(packet)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if answer != [0x20, 2, 0, 0] {
            return Err(io::Error::other(format!("the CONNECT was answered with {answer:?}")));
        }
        Ok(Self { stream, device, seq: 0, out: Vec::new(), payload: String::new() })
    }

    /// Publishes one reading; returns the time from PUBLISH to PUBACK.
    pub fn publish(&mut self) -> io::Result<Duration> {
        self.out.clear();
        let reading =
            BenchReading { device: self.device, metric: METRICS[0], seq: self.seq, time_ms: now_ms(), named: true };
        reading.publish(1, &mut self.payload, &mut self.out);
        self.seq += 1;
        let started = Instant::now();
        self.stream.write_all(&self.out)?;
        let mut answer = [0; PUBACK_BYTES];
        self.stream.read_exact(&mut answer)?;
        assert_eq!(answer, [0x40, 2, 0, 1], "a PUBACK");
        Ok(started.elapsed())
    }
}
