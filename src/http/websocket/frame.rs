//! WebSocket frames: headers of a client's frames, and of weir's (RFC 6455, section 5).

/// Longest header: two bytes, the longest length, the mask.
pub(super) const MAX_HEADER_BYTES: usize = 14;
/// Longest payload of a control frame, section 5.5.
pub(super) const MAX_CONTROL_BYTES: usize = 125;
/// Longest frame. A frame is never kept whole, and MQTT's packets have a limit of their own, so this only bounds the length
/// that a header may state.
pub(super) const MAX_FRAME_BYTES: u64 = 64 << 20;

/// The purpose of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// Part of the stream of MQTT packets.
    Data,
    Close,
    Ping,
    Pong,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub kind: FrameKind,
    /// Bytes of the payload, which follows the header.
    pub payload_bytes: u64,
    pub mask: [u8; 4],
    /// Bytes of the header itself.
    pub bytes: usize,
    /// Whether the message goes on in another frame.
    pub continues: bool,
}

/// Why a frame is refused; each reason has a status code of section 7.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameError {
    Protocol,
    /// A text frame: MQTT is binary [MQTT-6.0.0-1].
    NotBinary,
    TooLarge,
}

impl FrameError {
    pub fn status(self) -> u16 {
        match self {
            FrameError::Protocol => 1002,
            FrameError::NotBinary => 1003,
            FrameError::TooLarge => 1009,
        }
    }
}

/// Reads a header from the beginning of `bytes`. Returns `None` where more bytes are needed. `in_message` says whether a
/// message has begun and not ended.
///
/// # Errors
/// The frame is not allowed.
pub(super) fn header(bytes: &[u8], in_message: bool) -> Result<Option<FrameHeader>, FrameError> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    // Reserved bits belong to extensions, of which there are none; a client's frames are masked (section 5.1).
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(FrameError::Protocol);
    }
    let kind = match opcode {
        0 if in_message => FrameKind::Data,
        2 if !in_message => FrameKind::Data,
        1 if !in_message => return Err(FrameError::NotBinary),
        8 => FrameKind::Close,
        9 => FrameKind::Ping,
        10 => FrameKind::Pong,
        _ => return Err(FrameError::Protocol),
    };
    let short = second & 0x7f;
    if kind != FrameKind::Data && (!fin || usize::from(short) > MAX_CONTROL_BYTES) {
        return Err(FrameError::Protocol);
    }
    let (length_bytes, payload_bytes) = match (short, rest) {
        (126, &[a, b, ..]) => (2, u64::from(u16::from_be_bytes([a, b]))),
        (127, &[a, b, c, d, e, f, g, h, ..]) => (8, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        (126 | 127, _) => return Ok(None),
        (short, _) => (0, u64::from(short)),
    };
    if payload_bytes > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let Some(&[a, b, c, d]) = rest.get(length_bytes..length_bytes + 4) else { return Ok(None) };
    let continues = if kind == FrameKind::Data { !fin } else { in_message };
    Ok(Some(FrameHeader { kind, payload_bytes, mask: [a, b, c, d], bytes: 2 + length_bytes + 4, continues }))
}

/// Removes the mask from `bytes`, which begin `offset` bytes into the payload of the frame.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let mut mask = mask;
    mask.rotate_left((offset % 4) as usize);
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Appends the header of a frame that weir sends: not fragmented, not masked.
pub(super) fn put_header(opcode: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload_bytes {
        0..=125 => out.push(payload_bytes as u8),
        126..=65_535 => {
            out.push(126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}
