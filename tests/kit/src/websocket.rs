//! The client side of WebSocket over any stream.

use std::io::{self, BufRead as _, BufReader, Read, Write};

/// A WebSocket of a client that sends frames of at most `frame_bytes`.
pub struct WebSocketStream<S: Read + Write> {
    stream: BufReader<S>,
    frame_bytes: usize,
    /// Received payload that was not read yet.
    payload: Vec<u8>,
}

impl<S: Read + Write> WebSocketStream<S> {
    /// Opens a WebSocket; `extra` are further header lines. Returns the status line where it is refused.
    pub fn open(stream: S, frame_bytes: usize, extra: &str) -> Result<Self, String> {
        let mut stream = BufReader::new(stream);
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        );
        stream.get_mut().write_all(request.as_bytes()).expect("the handshake is sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).expect("an answer") == 0 {
                break;
            }
        }
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head.lines().next().unwrap_or_default().to_owned());
        }
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let subprotocol = |line: &str| line.eq_ignore_ascii_case("sec-websocket-protocol: mqtt");
        assert!(head.lines().any(subprotocol), "{head}");
        Ok(Self { stream, frame_bytes, payload: Vec::new() })
    }

    /// Sends one frame with this first byte.
    pub fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.get_mut().write_all(&bytes)
    }

    /// The next frame: its first byte and its payload.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.stream.read_exact(&mut bytes)?;
                usize::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.stream.read_exact(&mut bytes)?;
                u64::from_be_bytes(bytes) as usize
            }
            short => usize::from(short),
        };
        assert!(length < 1 << 20, "weir's frames are small and not masked");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }
}

impl<S: Read + Write> Read for WebSocketStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() {
            match self.receive()? {
                (0x82, payload) => self.payload = payload,
                (0x88, _) => return Ok(0),
                other => panic!("weir sent the frame {other:x?}"),
            }
        }
        let count = buffer.len().min(self.payload.len());
        buffer[..count].copy_from_slice(&self.payload[..count]);
        self.payload.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for WebSocketStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.frame_bytes);
        self.send(0x82, &bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().flush()
    }
}
