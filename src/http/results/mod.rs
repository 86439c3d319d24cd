//! `/api/v1/windows` and `/api/v1/errors`: pages of the result logs.
//!
//! A request is a scan of a log, forwards or backwards, that leaves out what an in-memory index rules out. It is
//! bounded in entries, in bytes and in records looked at; where a bound ends it early there is a cursor to go on with.

mod csv;
mod errors;

mod windows;

pub(super) use crate::results::scan::ScanError;
pub(super) use errors::{detail as error, error_seq, list as errors};
pub(super) use windows::list as windows;

use tokio::sync::TryAcquireError;

use crate::core::output::InvalidOutput;
use crate::http::parameters::{self, Parameters};
use crate::http::problem::Problem;
use crate::http::state::Shared;
use crate::telemetry::names;

use crate::results::record::DecodedResult;
use crate::results::scan::{ResultQuery, ResultWriter, ScanOrder};

/// Reads `limit`, `cursor`, `order`, `from` and `to`, which both lists have.
fn query(parameters: &Parameters) -> Result<ResultQuery, Problem> {
    let order = match parameters.get("order") {
        None | Some("asc") => ScanOrder::Ascending,
        Some("desc") => ScanOrder::Descending,
        Some(text) => {
            let detail = format!("order={text} is not an order; give asc (oldest first) or desc (newest first)");
            return Err(Problem::bad_request(detail));
        }
    };
    let (from_ms, to_ms) = parameters.range_ms()?;
    let cursor = parameters.get("cursor").map(|cursor| read_cursor(order, cursor)).transpose()?;
    let limit = parameters.limit()?;
    Ok(ResultQuery {
        order,
        cursor,
        limit,
        from_ms,
        to_ms,
        newest_only: false,
        device: None,
        metric: None,
        reason: None,
    })
}

/// The order is part of a cursor: the same position means another thing in the other direction.
fn write_cursor(order: ScanOrder, position: u64) -> String {
    let letter = if order == ScanOrder::Ascending { 'a' } else { 'd' };
    parameters::encode_cursor(&format!("{letter}{position}"))
}

fn read_cursor(order: ScanOrder, cursor: &str) -> Result<u64, Problem> {
    let text = parameters::decode_cursor(cursor)?;
    let position = text.strip_prefix(if order == ScanOrder::Ascending { 'a' } else { 'd' });
    position.and_then(|position| position.parse().ok()).ok_or_else(parameters::invalid_cursor)
}

/// Runs a scan on a thread that may block, if there is room for one more.
pub(super) async fn blocking<T: Send + 'static>(
    state: &Shared,
    scan: impl FnOnce() -> Result<T, ScanError> + Send + 'static,
) -> Result<T, Problem> {
    let permit = match state.scans.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            metrics::counter!(names::LIMITS_HIT, "limit" => "http_scans").increment(1);
            return Err(Problem::unavailable("other requests are reading results just now; try again in a second"));
        }
    };
    let scanned = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        scan()
    });
    match scanned.await {
        Ok(result) => result.map_err(Problem::from),
        Err(error) => {
            tracing::error!(%error, "a scan of results did not end");
            Err(Problem::internal())
        }
    }
}

impl From<ScanError> for Problem {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Log(error) => error.into(),
            ScanError::Record(seq, InvalidOutput(what)) => {
                tracing::error!(seq, %what, "a stored result cannot be read");
                Problem::internal()
            }
            ScanError::NotIndexed => {
                Problem::unavailable("the results found at start are still being indexed; try again in a second")
            }
        }
    }
}

/// Results of a list as JSON, separated by commas.
#[derive(Debug, Default)]
struct JsonItems(Vec<u8>);

impl JsonItems {
    fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl ResultWriter for JsonItems {
    fn write(&mut self, seq: u64, result: &DecodedResult<'_>) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        result.write_json(seq, &mut self.0);
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// The JSON of a list: `{"NAME":[ITEMS],"next_cursor":…}`.
fn list_json(name: &str, items: &[u8], cursor: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() + 64);
    out.extend_from_slice(format!("{{\"{name}\":[").as_bytes());
    out.extend_from_slice(items);
    out.extend_from_slice(b"],\"next_cursor\":");
    match cursor {
        // Cursors are base64url: nothing to escape.
        Some(cursor) => out.extend_from_slice(format!("\"{cursor}\"").as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_belong_to_an_order() {
        let cursor = write_cursor(ScanOrder::Ascending, 17);
        assert_eq!(read_cursor(ScanOrder::Ascending, &cursor), Ok(17));
        assert_eq!(read_cursor(ScanOrder::Descending, &cursor), Err(parameters::invalid_cursor()));
        assert_eq!(
            read_cursor(ScanOrder::Ascending, &parameters::encode_cursor("a-1")),
            Err(parameters::invalid_cursor())
        );
    }

    #[test]
    fn lists() {
        assert_eq!(list_json("windows", b"", None), b"{\"windows\":[],\"next_cursor\":null}");
        assert_eq!(list_json("errors", b"{},{}", Some("YQ")), b"{\"errors\":[{},{}],\"next_cursor\":\"YQ\"}");
    }
}
