//! `/api/v1/errors`.

use std::sync::Arc;

use axum::extract::{self, Path};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::core::output::{ErrorEntry, InvalidOutput};
use crate::core::reason::Reason;
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::log::{Batch, Log, LogError, Lsn, Reader};
use crate::results::index::Entry;
use crate::results::scan::{ResultLog, ScanError, Writer};

const PARAMETERS: &[&str] = &["reason", "device", "from", "to", "limit", "cursor", "order"];

struct Errors {
    reason: Option<Reason>,
    device: Option<String>,
    out: Vec<u8>,
}

impl Writer for Errors {
    fn write(&mut self, seq: u64, record: &[u8]) -> Result<bool, InvalidOutput> {
        let entry = ErrorEntry::decode(record)?;
        let other_reason = self.reason.is_some_and(|reason| reason != entry.reason);
        let other_device = self.device.is_some() && self.device.as_deref() != entry.device_id;
        if other_reason || other_device {
            return Ok(false);
        }
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        entry.write_json(seq, &mut self.out);
        Ok(true)
    }

    fn bytes(&self) -> usize {
        self.out.len()
    }
}

impl ResultLog {
    /// The errors log: `from` and `to` select by arrival time.
    pub fn errors(log: Log) -> Self {
        Self::new(log, |record| Ok(Entry { time_ms: ErrorEntry::decode(record)?.arrival_ms, supersedes: None }))
    }

    /// To look up entries by their sequence numbers, in ascending order.
    pub(in crate::http) fn entries(&self) -> Entries<'_> {
        Entries { log: &self.log, reader: self.log.reader(Lsn(0)), batch: None }
    }
}

/// What there is under a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Found {
    /// The stored form of an entry.
    Entry(Vec<u8>),
    /// Nothing yet.
    Unknown,
    /// Nothing any more; the oldest number kept.
    Freed(u64),
    /// Nothing that can be read.
    Unreadable,
}

/// Looks up entries one after the other.
#[derive(Debug)]
pub(in crate::http) struct Entries<'a> {
    log: &'a Log,
    reader: Reader,
    batch: Option<Arc<Batch>>,
}

impl Entries<'_> {
    /// The entry with this number, which is greater than that of the call before.
    pub fn find(&mut self, seq: u64) -> Result<Found, LogError> {
        if seq >= self.log.readable().0 {
            return Ok(Found::Unknown);
        }
        if self.batch.as_ref().is_none_or(|batch| batch.end().0 <= seq) {
            if self.reader.position().0 != seq {
                self.reader.seek(Lsn(seq));
            }
            self.batch = self.reader.next_batch()?;
        }
        let Some(batch) = &self.batch else { return Ok(Found::Unknown) };
        let Some(at) = seq.checked_sub(batch.first().0) else { return Ok(Found::Freed(batch.first().0)) };
        // A batch holds fewer records than an address can count.
        let entry = usize::try_from(at).ok().and_then(|at| batch.records().nth(at));
        Ok(entry.map_or(Found::Unreadable, |bytes| Found::Entry(bytes.to_vec())))
    }
}

/// The number of an error in a path.
pub(in crate::http) fn error_seq(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        Problem::not_found(format!("{text:?} is not the number of an error; /api/v1/errors lists them with their seq"))
    })
}

/// One entry.
pub(in crate::http) async fn detail(
    extract::State(state): extract::State<State>,
    Path(seq): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Parameters::read(&uri, &[])?;
    let seq = error_seq(&seq)?;
    let live = state.parts.live.clone();
    let found = super::blocking(&state, move || Ok(live.errors.entries().find(seq)?)).await?;
    let bytes = match found {
        Found::Entry(bytes) => bytes,
        Found::Unknown => {
            return Err(Problem::not_found(format!("there is no error {seq}; /api/v1/errors lists them")));
        }
        Found::Freed(first) => {
            let detail = format!("error {seq} is no longer stored, the oldest is {first}; errors.retention keeps them");
            return Err(Problem::gone(detail));
        }
        Found::Unreadable => {
            return Err(Problem::gone(format!("error {seq} was cut out of the errors log when it was repaired")));
        }
    };
    let entry = ErrorEntry::decode(&bytes).map_err(|error| Problem::from(ScanError::Record(seq, error)))?;
    let mut body = Vec::new();
    entry.write_json(seq, &mut body);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub(in crate::http) async fn list(extract::State(state): extract::State<State>, uri: Uri) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let page = super::page(&parameters)?;
    let mut errors = Errors {
        reason: parameters.get("reason").map(reason).transpose()?,
        device: parameters.get("device").map(str::to_owned),
        out: Vec::new(),
    };
    let live = state.parts.live.clone();
    let (items, next) = super::blocking(&state, move || {
        let next = live.errors.scan(&page, false, &mut errors)?;
        Ok((errors.out, next))
    })
    .await?;
    let cursor = next.map(|position| super::write_cursor(page.order, position));
    let body = super::list_json("errors", &items, cursor.as_deref());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn reason(name: &str) -> Result<Reason, Problem> {
    Reason::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::bad_request(format!("there is no reason {name:?}; give one of {}", known.join(", ")))
    })
}
