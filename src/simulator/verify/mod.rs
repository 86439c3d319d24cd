//! Verification of weir's windows and errors against the messages that were sent and acknowledged.
//!
//! For each (device, metric, window start) a window must hold all acknowledged readings except those that the error log
//! reports as late. It may hold readings that were sent and not acknowledged. Nothing here uses weir's own decoder,
//! windows or aggregates, so a defect there cannot hide itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::client::{HttpClient, HttpError, percent_encoded};
use crate::config::Config;
use crate::core::settings::WatermarkScope;
use crate::simulator::format::DeviceFormat;
use crate::simulator::ledger::DeviceLedger;
use crate::simulator::message::MessageEncoder;
use crate::simulator::options::FleetOptions;
use crate::telemetry::names;

mod rejections;
mod windows;

/// Largest number of differences that are shown.
const SHOWN: usize = 20;
/// Entries per page of a list.
const PAGE: usize = 1_000;
/// Largest number of pages of one list: a cursor that does not advance must not hold the verification forever.
const MAX_PAGES: usize = 100_000;
/// Time between two attempts to find results that are not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Settings of the running weir on which the results depend.
#[derive(Debug, Clone)]
pub struct Expectations {
    options: FleetOptions,
    window_ms: i64,
    allowed_lateness_ms: i64,
    out_of_orderness_ms: i64,
    /// Whether each device has its own watermark. With a common watermark, lateness depends on other devices.
    own_watermarks: bool,
    /// Whether windows close when a device falls silent.
    closed_by_silence: bool,
    /// Longest wait for windows to close.
    patience: Duration,
}

impl Expectations {
    /// The settings of `config`, which must be the configuration of the weir that is asked.
    pub fn new(config: &Config, options: &FleetOptions) -> Self {
        let window = &config.window;
        let silence_ms = window.idle_timeout_ms.unwrap_or(0) + window.size_ms + window.out_of_orderness_ms;
        let work = Duration::from_millis(20) * u32::try_from(options.devices).unwrap_or(u32::MAX);
        Self {
            options: options.clone(),
            window_ms: window.size_ms,
            allowed_lateness_ms: window.allowed_lateness_ms,
            out_of_orderness_ms: window.out_of_orderness_ms,
            own_watermarks: window.watermark == WatermarkScope::Device,
            closed_by_silence: window.idle_timeout_ms.is_some(),
            patience: Duration::from_secs(60) + Duration::from_millis(silence_ms.unsigned_abs()) + work,
        }
    }
}

/// Result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Number of devices that were compared.
    pub devices: usize,
    /// Number of readings in right windows.
    pub readings: u64,
    /// Number of windows that are right.
    pub windows: u64,
    /// Number of error log entries that belong to sent messages.
    pub errors: u64,
    /// Number of differences.
    pub differing: usize,
    /// The first differences, at most 20.
    pub differences: Vec<String>,
}

impl Verification {
    /// Whether nothing differs.
    pub fn passed(&self) -> bool {
        self.differing == 0
    }

    fn add(&mut self, outcome: DeviceVerification) {
        self.devices += 1;
        self.readings += outcome.readings;
        self.windows += outcome.windows;
        self.errors += outcome.errors;
        self.differing += outcome.differences.len();
        let room = SHOWN.saturating_sub(self.differences.len());
        self.differences.extend(outcome.differences.into_iter().take(room));
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, readings, windows, errors, differing, differences } = self;
        if self.passed() {
            return writeln!(
                f,
                "verified: {devices} devices, {readings} readings in {windows} windows, {errors} in the error log: every \
                 acknowledged reading is accounted for and every window is right"
            );
        }
        writeln!(f, "NOT as sent: {differing} differences over {devices} devices, the first {}:", differences.len())?;
        differences.iter().try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}

/// Result of the verification of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct DeviceVerification {
    readings: u64,
    windows: u64,
    errors: u64,
    /// Whether the differences are final: a later comparison cannot remove them.
    settled: bool,
    differences: Vec<String>,
}

/// A window of the API. Numbers that overflowed are `null`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct WindowSeen {
    metric: String,
    window_start: i64,
    window_end: i64,
    count: u64,
    sum: Option<f64>,
    mean: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    first: Option<f64>,
    last: Option<f64>,
}

/// An entry of the error log from the API.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
struct ErrorSeen {
    reason: String,
    #[serde(default)]
    index: usize,
    metric: Option<String>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    topic: String,
}

impl ErrorSeen {
    /// The payload, whose text is shown as it is or in base64.
    fn bytes(&self) -> Vec<u8> {
        let encoded = self.payload_base64.as_deref().and_then(|encoded| BASE64.decode(encoded).ok());
        encoded.unwrap_or_else(|| self.payload.as_deref().unwrap_or_default().as_bytes().to_vec())
    }

    /// The payload as the error log shows it.
    fn shown(&self) -> &str {
        self.payload.as_deref().or(self.payload_base64.as_deref()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct WindowPage {
    windows: Vec<WindowSeen>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct ErrorPage {
    errors: Vec<ErrorSeen>,
    next_cursor: Option<String>,
}

/// Start of the window that holds `event_ms`. Times before 1970 are negative.
fn window_start_ms(event_ms: i64, window_ms: i64) -> i64 {
    event_ms - event_ms.rem_euclid(window_ms)
}

/// Why the verification cannot use an answer of the API.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{path} answered {status}: {body}")]
    Status { path: String, status: u16, body: String },
    #[error("{0}")]
    Refused(String),
    #[error("{path} answered what is not the documented form: {source}")]
    Form { path: String, source: serde_json::Error },
    #[error("{path} has more than {MAX_PAGES} pages")]
    TooManyPages { path: String },
    #[error("/metrics has no {0}")]
    NoMetric(&'static str),
    #[error("{0}")]
    NotYet(String),
}

/// Waits until weir has processed all messages and their windows are closed, and compares. Devices that differ are
/// compared again until the time to wait is over, so the result is final.
pub async fn verify(ledgers: &[DeviceLedger], expectations: &Expectations, client: &HttpClient) -> Verification {
    let deadline = Instant::now() + expectations.patience;
    let mut result = Verification::default();
    if let Err(error) = processed(client, deadline).await {
        result.add(DeviceVerification { differences: vec![error.to_string()], ..DeviceVerification::default() });
        return result;
    }
    let mut open: Vec<&DeviceLedger> = ledgers.iter().collect();
    loop {
        let last_look = Instant::now() >= deadline;
        let mut differing = Vec::new();
        let mut malformed = malformed_by_topic(expectations, client).await;
        for ledger in open {
            let outcome = device(ledger, expectations, client, &mut malformed).await;
            if outcome.differences.is_empty() || outcome.settled || last_look {
                result.add(outcome);
            } else {
                differing.push(ledger);
            }
        }
        if differing.is_empty() {
            break;
        }
        open = differing;
        sleep(LOOK_AGAIN).await;
    }
    if let Err(error) = accounted(client).await {
        result.add(DeviceVerification { differences: vec![error.to_string()], ..DeviceVerification::default() });
    }
    result
}

/// Waits until the pipeline has processed every synced journal record.
async fn processed(client: &HttpClient, deadline: Instant) -> Result<(), VerifyError> {
    loop {
        let waiting = match metric(client, names::PIPELINE_BACKLOG).await {
            Ok(0.0) => return Ok(()),
            Ok(records) => VerifyError::NotYet(format!("weir has still {records} journal records to process")),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(waiting);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Checks weir's own count of readings that are accounted for nowhere, which must be 0.
async fn accounted(client: &HttpClient) -> Result<(), VerifyError> {
    match metric(client, names::READINGS_UNACCOUNTED).await? {
        0.0 => Ok(()),
        readings => Err(VerifyError::NotYet(format!("{} is {readings}: it must be 0", names::READINGS_UNACCOUNTED))),
    }
}

async fn metric(client: &HttpClient, name: &'static str) -> Result<f64, VerifyError> {
    let text = fetch(client, "/metrics").await?;
    let value = String::from_utf8_lossy(&text).lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or(VerifyError::NoMetric(name))
}

/// Entries of the error log by topic.
type ErrorsByTopic = Result<BTreeMap<String, Vec<ErrorSeen>>, String>;

/// Entries of messages that a map could not read. They name no device, so that they are looked up by their topics. weir's own form
/// needs none of them.
async fn malformed_by_topic(expectations: &Expectations, client: &HttpClient) -> ErrorsByTopic {
    if expectations.options.format == DeviceFormat::Native {
        return Ok(BTreeMap::new());
    }
    let path = format!("/api/v1/errors?reason=malformed&limit={PAGE}");
    let errors = pages(client, &path, |page: ErrorPage| (page.errors, page.next_cursor)).await;
    let mut by_topic: BTreeMap<String, Vec<ErrorSeen>> = BTreeMap::new();
    for error in errors.map_err(|error| error.to_string())? {
        by_topic.entry(error.topic.clone()).or_default().push(error);
    }
    Ok(by_topic)
}

async fn device(
    ledger: &DeviceLedger,
    expectations: &Expectations,
    client: &HttpClient,
    malformed: &mut ErrorsByTopic,
) -> DeviceVerification {
    let format = expectations.options.format;
    let id = &format.device_id(&ledger.device_id);
    let windows = pages(client, &format!("/api/v1/windows?device={id}&limit={PAGE}"), |page: WindowPage| {
        (page.windows, page.next_cursor)
    })
    .await;
    let errors = pages(client, &format!("/api/v1/errors?device={id}&limit={PAGE}"), |page: ErrorPage| {
        (page.errors, page.next_cursor)
    })
    .await;
    let unreadable = match malformed {
        Ok(by_topic) => Ok(by_topic.remove(&format.topic(&ledger.device_id)).unwrap_or_default()),
        Err(error) => Err(error.clone()),
    };
    let of_answers = |error: VerifyError| error.to_string();
    match (windows.map_err(of_answers), errors.map_err(of_answers), unreadable) {
        (Ok(windows), Ok(mut errors), Ok(unreadable)) => {
            errors.extend(unreadable);
            judge(ledger, expectations, &windows, &errors)
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            DeviceVerification { differences: vec![format!("{id}: {error}")], ..DeviceVerification::default() }
        }
    }
}

/// Compares the messages of one device with its windows and errors.
fn judge(
    ledger: &DeviceLedger,
    expectations: &Expectations,
    windows: &[WindowSeen],
    errors: &[ErrorSeen],
) -> DeviceVerification {
    let encoder = MessageEncoder::new(&expectations.options, &ledger.device_id);
    let mut outcome = DeviceVerification::default();
    let rejections = rejections::examine(ledger, expectations, &encoder, errors, &mut outcome);
    windows::compare(ledger, expectations, &rejections, windows, &mut outcome);
    outcome
}

async fn pages<P: DeserializeOwned, T>(
    client: &HttpClient,
    path: &str,
    split: impl Fn(P) -> (Vec<T>, Option<String>),
) -> Result<Vec<T>, VerifyError> {
    let mut all = Vec::new();
    let mut next = path.to_owned();
    for _ in 0..MAX_PAGES {
        let body = fetch(client, &next).await?;
        let page = serde_json::from_slice(&body).map_err(|source| VerifyError::Form { path: next.clone(), source })?;
        let (entries, cursor) = split(page);
        all.extend(entries);
        match cursor {
            Some(cursor) => next = format!("{path}&cursor={}", percent_encoded(&cursor)),
            None => return Ok(all),
        }
    }
    Err(VerifyError::TooManyPages { path: path.to_owned() })
}

async fn fetch(client: &HttpClient, path: &str) -> Result<bytes::Bytes, VerifyError> {
    let response = client.get(path).await?;
    if response.status == 200 {
        return Ok(response.body);
    }
    if let Some(refused) = client.access_refusal(&response) {
        return Err(VerifyError::Refused(refused));
    }
    let body = String::from_utf8_lossy(&response.body).chars().take(200).collect();
    Err(VerifyError::Status { path: path.to_owned(), status: response.status, body })
}

#[cfg(test)]
mod tests;
