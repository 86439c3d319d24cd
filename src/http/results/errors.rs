//! `/api/v1/errors`.

use axum::extract;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::core::output::{ErrorEntry, InvalidOutput};
use crate::core::reason::Reason;
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::results::index::Entry;
use crate::http::results::scan::{ResultLog, Writer};
use crate::http::state::State;
use crate::log::Log;

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
