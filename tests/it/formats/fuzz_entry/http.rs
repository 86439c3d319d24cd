//! HTTP requests.

use super::server::{answer, answer_to_any};

/// The first byte says what the rest is (bits 0 and 1): 0 bytes of a connection; 1 header lines of a request; 2 its path and
/// query; 3 the body of a replay of errors. Bit 2: bytes that
/// need not be a request are sent in small pieces. Whatever it is, health is answered afterwards.
pub fn http(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    const REST: &[u8] = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let length = bytes.len().to_string();
    let request = match shape & 3 {
        0 => bytes.to_vec(),
        1 => [b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n", bytes, b"\r\n\r\n"].concat(),
        2 => [b"GET /", bytes, REST].concat(),
        _ => {
            let head = b"POST /api/v1/errors/replay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
            [&head[..], b"Connection: close\r\nContent-Length: ", length.as_bytes(), b"\r\n\r\n", bytes].concat()
        }
    };
    let piece = if shape & 4 == 0 { usize::MAX } else { 3 };
    is_http(&if ends(shape & 3, bytes) { answer(&request) } else { answer_to_any(&request, piece) });
    let health = answer(&[b"GET /healthz", REST].concat());
    assert!(health.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&health));
}

/// Whether the server closes the connection behind the request by itself. An event stream does not end.
fn ends(shape: u8, bytes: &[u8]) -> bool {
    match shape {
        0 | 1 => false,
        2 => !bytes.iter().any(|byte| b"\r\n%".contains(byte)) && !bytes.windows(6).any(|part| part == b"stream"),
        _ => true,
    }
}

/// Checks the status line of an answer, where there is one, and that it is no internal error.
fn is_http(answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
    let code = status.and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    assert!(code.is_some_and(|code| code != 500), "{text}");
}
