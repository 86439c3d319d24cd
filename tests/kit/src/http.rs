//! HTTP over a plain socket, without the HTTP code of weir.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::wait::DEADLINE;

/// An HTTP answer.
#[derive(Debug)]
pub struct TestResponse {
    pub status: u16,
    /// Headers with lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl TestResponse {
    /// Checks that the status is 200.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a UTF-8 body")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> TestResponse {
    get_as(address, path, "*/*")
}

#[track_caller]
pub fn get_as(address: SocketAddr, path: &str, accept: &str) -> TestResponse {
    request(address, path, accept).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// Sends a POST with a JSON body.
#[track_caller]
pub fn post(address: SocketAddr, path: &str, json: &str) -> TestResponse {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{json}",
        json.len()
    );
    answer_to(address, &head).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// Sends a request without a body, with a bearer token or without.
#[track_caller]
pub fn ask(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> TestResponse {
    let head = bearer_head(address, method, path, token);
    answer_to(address, &head).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// The text of a request without a body, with a bearer token or without.
pub fn bearer_head(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n")
}

/// Sends a GET; `None` without a complete answer.
pub fn try_get(address: SocketAddr, path: &str) -> Option<TestResponse> {
    request(address, path, "*/*").ok()
}

fn request(address: SocketAddr, path: &str, accept: &str) -> std::io::Result<TestResponse> {
    read_answer(send(address, path, accept, "close")?)
}

fn answer_to(address: SocketAddr, request: &str) -> std::io::Result<TestResponse> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    read_answer(BufReader::new(stream))
}

fn read_answer(mut reader: BufReader<TcpStream>) -> std::io::Result<TestResponse> {
    let (status, headers) = read_head(&mut reader)?;
    let mut body = Vec::new();
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value.contains("chunked")) {
        while let Some(chunk) = read_chunk(&mut reader)? {
            body.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(TestResponse { status, headers, body })
}

fn send(address: SocketAddr, path: &str, accept: &str, connection: &str) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    Ok(BufReader::new(stream))
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// One chunk; `None` after the last.
fn read_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let size = read_line(reader)?;
    let size = usize::from_str_radix(&size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk)?;
    read_line(reader)?;
    Ok((size > 0).then_some(chunk))
}

/// An open stream of server-sent events.
pub struct SseReader {
    reader: BufReader<TcpStream>,
    text: String,
}

impl SseReader {
    pub fn open(address: SocketAddr, path: &str) -> Self {
        let mut reader = send(address, path, "text/event-stream", "keep-alive").expect("the stream opens");
        let (status, headers) = read_head(&mut reader).expect("the stream answers");
        assert_eq!(status, 200);
        assert!(headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/event-stream")));
        Self { reader, text: String::new() }
    }

    /// The next event's name and data.
    pub fn next_event(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = field("data:").map(|data| {
                    let data = serde_json::from_str(data).expect("events carry JSON");
                    (field("event:").unwrap_or_default().to_owned(), data)
                });
                self.text = rest.to_owned();
                match found {
                    Some(found) => return found,
                    None => continue,
                }
            }
            let chunk = read_chunk(&mut self.reader).expect("the stream goes on").expect("the stream does not end");
            self.text.push_str(&String::from_utf8(chunk).expect("events are text"));
        }
    }
}
