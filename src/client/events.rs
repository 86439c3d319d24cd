//! Server-sent events.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Response};

use super::{HttpClient, HttpError, HttpResponse, MAX_BODY_BYTES};

/// Longest event that is read.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// Text of an event stream whose events are not read yet.
#[derive(Debug, Default)]
struct EventBuffer(Vec<u8>);

impl EventBuffer {
    /// The next event: its name and its data, joined by line ends. Events without data, such as comments, are passed over.
    fn next(&mut self) -> Option<(String, String)> {
        loop {
            let end = self.0.windows(2).position(|pair| pair == b"\n\n")?;
            let rest = self.0.split_off(end + 2);
            let block = std::mem::replace(&mut self.0, rest);
            let block = String::from_utf8_lossy(&block);
            let field = |name: &'static str| {
                let lines = block.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'));
                lines.map(|value| value.strip_prefix(' ').unwrap_or(value))
            };
            let data: Vec<&str> = field("data").collect();
            if !data.is_empty() {
                let name = field("event").next_back().unwrap_or("message").to_owned();
                return Some((name, data.join("\n")));
            }
        }
    }
}

impl HttpClient {
    /// Reads the event stream at `path` until it ends, or until `take` returns `false` for the name and the data of an event.
    /// An answer other than a stream is returned.
    ///
    /// # Errors
    /// [`HttpError`] where there is no answer, or the stream breaks off or has an event of more than 4 MiB.
    pub async fn events(
        &self,
        path: &str,
        mut take: impl FnMut(&str, &str) -> bool,
    ) -> Result<Option<HttpResponse>, HttpError> {
        let read = async |response: Response<Incoming>| {
            let status = response.status().as_u16();
            let mut body = response.into_body();
            if status != 200 {
                let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
                return Ok(Some(HttpResponse {
                    status,
                    body: body.map_err(|error| self.broken(path, error))?.to_bytes(),
                }));
            }
            let mut buffer = EventBuffer::default();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken(path, error.into()))?;
                buffer.0.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                while let Some((name, data)) = buffer.next() {
                    if !take(&name, &data) {
                        return Ok(None);
                    }
                }
                if buffer.0.len() > MAX_EVENT_BYTES {
                    return Err(self.broken(path, "an event of more than 4 MiB".into()));
                }
            }
            Ok(None)
        };
        self.exchange(Method::GET, path, Bytes::new(), read).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whole() {
        let mut buffer = EventBuffer::default();
        let mut all = Vec::new();
        for part in [": hi\n\nevent: missed\ndata: {\"missed\":3}\n", "\ndata:a\ndata: b\nid: 7\n\nevent: x\n"] {
            buffer.0.extend_from_slice(part.as_bytes());
            while let Some(event) = buffer.next() {
                all.push(event);
            }
        }
        let expected = [("missed", "{\"missed\":3}"), ("message", "a\nb")];
        assert_eq!(all, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
        assert_eq!(buffer.0, b"event: x\n");
    }
}
