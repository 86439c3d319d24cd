//! The parts that both lists of results use: parameters, cursors and the JSON body.

use crate::http::parameters::{self, Parameters};
use crate::http::problem::ApiProblem;
use crate::http::scans::run_scan;
use crate::http::state::ApiShared;
use crate::results::log::{ResultLog, ResultLogs};
use crate::results::record::DecodedResult;
use crate::results::scan::{ResultQuery, ResultWriter, ScanOrder};

/// Reads `limit`, `cursor`, `order`, `from` and `to`, which both lists have.
pub(super) fn query(parameters: &Parameters) -> Result<ResultQuery, ApiProblem> {
    let order = match parameters.get("order") {
        None | Some("asc") => ScanOrder::Ascending,
        Some("desc") => ScanOrder::Descending,
        Some(text) => {
            let detail = format!("order={text} is not an order; give asc (oldest first) or desc (newest first)");
            return Err(ApiProblem::bad_request(detail));
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

/// Runs a query of the log that `log` chooses. Returns the writer and the cursor of the next page.
pub(super) async fn run<W: ResultWriter + Send + 'static>(
    state: &ApiShared,
    log: fn(&ResultLogs) -> &ResultLog,
    query: ResultQuery,
    mut writer: W,
) -> Result<(W, Option<String>), ApiProblem> {
    let (order, results) = (query.order, state.resources.results.clone());
    let (writer, next) = run_scan(state, move || {
        let next = log(&results).scan(&query, &mut writer)?;
        Ok((writer, next))
    })
    .await?;
    Ok((writer, next.map(|position| write_cursor(order, position))))
}

/// Encodes a cursor. The order is part of it: the same position has another meaning in the other direction.
fn write_cursor(order: ScanOrder, position: u64) -> String {
    let letter = if order == ScanOrder::Ascending { 'a' } else { 'd' };
    parameters::encode_cursor(&format!("{letter}{position}"))
}

fn read_cursor(order: ScanOrder, cursor: &str) -> Result<u64, ApiProblem> {
    let text = parameters::decode_cursor(cursor)?;
    let position = text.strip_prefix(if order == ScanOrder::Ascending { 'a' } else { 'd' });
    position.and_then(|position| position.parse().ok()).ok_or_else(parameters::invalid_cursor)
}

/// Results as JSON objects, separated by commas.
///
/// The body of a list is put together by hand, unlike all other JSON of the API: results are encoded while the log is
/// scanned, since the bytes written bound the scan, and core encodes them the same for lists, streams and MQTT.
/// `serde_json` could take them in only by parsing them again.
#[derive(Debug, Default)]
pub(super) struct JsonItems(Vec<u8>);

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

impl JsonItems {
    /// The body `{"NAME":[ITEMS],"next_cursor":…}`.
    pub fn into_body(self, name: &str, cursor: Option<&str>) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.0.len() + 64);
        body.extend_from_slice(format!("{{\"{name}\":[").as_bytes());
        body.extend_from_slice(&self.0);
        body.extend_from_slice(b"],\"next_cursor\":");
        match cursor {
            // Cursors are base64url: nothing to escape.
            Some(cursor) => body.extend_from_slice(format!("\"{cursor}\"").as_bytes()),
            None => body.extend_from_slice(b"null"),
        }
        body.push(b'}');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_belong_to_an_order() {
        let cursor = write_cursor(ScanOrder::Ascending, 17);
        assert_eq!(read_cursor(ScanOrder::Ascending, &cursor), Ok(17));
        assert_eq!(read_cursor(ScanOrder::Descending, &cursor), Err(parameters::invalid_cursor()));
        let negative = parameters::encode_cursor("a-1");
        assert_eq!(read_cursor(ScanOrder::Ascending, &negative), Err(parameters::invalid_cursor()));
    }

    #[test]
    fn lists() {
        let list = |items: &[u8], name, cursor| JsonItems(items.to_vec()).into_body(name, cursor);
        assert_eq!(list(b"", "windows", None), b"{\"windows\":[],\"next_cursor\":null}");
        assert_eq!(list(b"{},{}", "errors", Some("YQ")), b"{\"errors\":[{},{}],\"next_cursor\":\"YQ\"}");
    }
}
