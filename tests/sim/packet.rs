//! MQTT packets as a small client reads and writes them; written from the standard, apart from weir's own.

/// Protocol level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

/// What weir sends to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Connack { present: bool, code: u8 },
    Puback(u16),
    Pubrec(u16),
    Pubcomp(u16),
    Disconnect(u8),
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub fn connect(version: Version, client: &str, clean: bool) -> Vec<u8> {
    let mut body = Vec::new();
    string("MQTT", &mut body);
    body.extend_from_slice(&[if version == Version::V5 { 5 } else { 4 }, u8::from(clean) << 1, 0, 0]);
    if version == Version::V5 {
        // A session expiry of an hour where the session is to be kept.
        body.extend_from_slice(if clean { &[0][..] } else { &[5, 0x11, 0, 0, 0x0E, 0x10] });
    }
    string(client, &mut body);
    packet(0x10, &body)
}

#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub qos: u8,
    pub dup: bool,
    pub packet_id: u16,
    pub payload: &'a [u8],
}

pub fn publish(version: Version, publish: &Publish<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    string(publish.topic, &mut body);
    if publish.qos > 0 {
        body.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(publish.payload);
    packet(0x30 | u8::from(publish.dup) << 3 | publish.qos << 1, &body)
}

pub fn pubrel(packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![0x62, 2, high, low]
}

/// Takes the next whole packet off `bytes`.
pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Answer>, String> {
    let [first, length, ..] = bytes[..] else { return Ok(None) };
    let end = 2 + usize::from(length);
    if bytes.len() < end {
        return Ok(None);
    }
    let body: Vec<u8> = bytes.drain(..end).skip(2).collect();
    let id = || match body[..] {
        [high, low, ..] => Ok(u16::from_be_bytes([high, low])),
        _ => Err(format!("an acknowledgement of {} bytes", body.len())),
    };
    match (first, body.get(2)) {
        (0x20, _) if body.len() >= 2 => Ok(Some(Answer::Connack { present: body[0] & 1 == 1, code: body[1] })),
        (0x40 | 0x50 | 0x70, Some(reason)) if *reason >= 0x80 && *reason != 0x92 => {
            Err(format!("packet {first:#x} with reason {reason:#x}"))
        }
        (0x40, _) => Ok(Some(Answer::Puback(id()?))),
        (0x50, _) => Ok(Some(Answer::Pubrec(id()?))),
        (0x70, _) => Ok(Some(Answer::Pubcomp(id()?))),
        (0xE0, _) => Ok(Some(Answer::Disconnect(body.first().copied().unwrap_or(0)))),
        _ => Err(format!("a packet that begins with {first:#x} was not expected")),
    }
}
