//! `weir errors list` and `weir errors replay`, over the HTTP API of a running weir.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use weir::client::{HttpClient, base_url, percent_encoded};
use weir::config::Config;

use crate::cli::{ErrorsArguments, ErrorsCommand};
use crate::commands::api::{ATTEMPTS, PAUSE, ask};
use crate::exit::FAILURE;

/// Errors of one page, and of one request to replay them.
const PAGE: u64 = 1_000;

/// Questions for the effects of replays; with the time between two of them, half a minute.
const EFFECT_ATTEMPTS: usize = 300;
/// Time between two questions for the effects of replays.
const EFFECT_PAUSE: Duration = Duration::from_millis(100);

/// Runs `weir errors list` or `weir errors replay`.
///
/// # Errors
/// weir cannot be reached, refuses a request, or has no room in its journal.
pub fn run(command: &ErrorsCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let (ErrorsCommand::List(arguments) | ErrorsCommand::Replay(arguments)) = command;
    let client = HttpClient::new(&base_url(arguments.url.as_deref(), config), &arguments.api)?;
    let errors = ErrorPages { client: &client, filters: filters(arguments), left: arguments.limit.unwrap_or(u64::MAX) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        ErrorsCommand::List(_) => runtime.block_on(list(errors)).map(|()| ExitCode::SUCCESS),
        ErrorsCommand::Replay(_) => runtime.block_on(replay(errors)),
    }
}

fn filters(arguments: &ErrorsArguments) -> String {
    let ErrorsArguments { reason, device, from, to, .. } = arguments;
    let named = [("reason", reason), ("device", device), ("from", from), ("to", to)];
    let given = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!("&{name}={}", percent_encoded(value))).collect()
}

/// A page of the errors log. The errors themselves are printed as they came.
#[derive(Deserialize)]
struct ErrorsPage {
    errors: Vec<Value>,
    next_cursor: Option<String>,
}

/// Body of a request to replay errors.
#[derive(Serialize)]
struct ReplayErrorsRequest {
    seqs: Vec<u64>,
}

/// The answer to a request to replay errors.
#[derive(Deserialize)]
struct ReplayErrorsAnswer {
    results: Vec<ReplayErrorResult>,
}

#[derive(Deserialize)]
struct ReplayErrorResult {
    seq: u64,
    outcome: String,
    detail: Option<String>,
}

/// What became of replayed errors.
#[derive(Deserialize)]
struct ReplayEffectsAnswer {
    results: Vec<ReplayEffectResult>,
}

#[derive(Deserialize)]
struct ReplayEffectResult {
    seq: u64,
    state: String,
    #[serde(default)]
    counted: u64,
    #[serde(default)]
    rejected: BTreeMap<String, u64>,
    detail: Option<String>,
}

/// Reads the errors that the filters select, page by page.
struct ErrorPages<'a> {
    client: &'a HttpClient,
    filters: String,
    /// Errors that may still be read under --limit.
    left: u64,
}

impl ErrorPages<'_> {
    /// The next page, and the cursor of the page after it.
    async fn page(&mut self, cursor: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let limit = PAGE.min(self.left).max(1);
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/api/v1/errors?limit={limit}{}{cursor}", self.filters);
        let ErrorsPage { mut errors, next_cursor } = ask(self.client, &path, None::<&()>).await?;
        errors.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= errors.len() as u64;
        Ok((errors, next_cursor.filter(|_| self.left > 0)))
    }
}

async fn list(mut errors: ErrorPages<'_>) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut cursor = None;
    while errors.left > 0 {
        let (page, next) = errors.page(cursor.as_deref()).await?;
        for error in page {
            writeln!(out, "{error}")?;
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(out.flush()?)
}

/// Results of a replay so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReplayProgress {
    found: u64,
    replayed: u64,
    /// Number of errors that were not replayed and the latest detail, by outcome.
    refused: BTreeMap<String, (u64, String)>,
    /// Readings of the replayed errors that are in windows.
    counted: u64,
    /// Number of readings that were rejected again and the latest sentence, by reason.
    rejected: BTreeMap<String, (u64, String)>,
    /// Replayed errors whose effect is not known.
    unknown: u64,
}

impl ReplayProgress {
    fn refused(&self) -> u64 {
        self.refused.values().map(|(count, _)| count).sum()
    }

    fn line(&self) -> String {
        format!("replayed {}, refused {}, of {} errors so far", self.replayed, self.refused(), self.found)
    }

    /// Counts the results of one answer. Returns the replayed errors, and those to be tried again.
    fn take(&mut self, answer: ReplayErrorsAnswer) -> (Vec<u64>, Vec<u64>) {
        let (mut replayed, mut again) = (Vec::new(), Vec::new());
        for ReplayErrorResult { seq, outcome, detail } in answer.results {
            match outcome.as_str() {
                "replayed" => replayed.push(seq),
                "busy" | "disk_full" => again.push(seq),
                _ => {
                    let entry = self.refused.entry(outcome).or_default();
                    *entry = (entry.0 + 1, detail.unwrap_or_default());
                }
            }
        }
        self.replayed += replayed.len() as u64;
        (replayed, again)
    }

    /// Counts the effects of replays. Returns the errors whose replay is not processed yet.
    fn take_effects(&mut self, answer: ReplayEffectsAnswer) -> Vec<u64> {
        let mut pending = Vec::new();
        for ReplayEffectResult { seq, state, counted, rejected, detail } in answer.results {
            match state.as_str() {
                "pending" => pending.push(seq),
                "processed" => {
                    self.counted += counted;
                    for (reason, count) in rejected {
                        let entry = self.rejected.entry(reason).or_default();
                        *entry = (entry.0 + count, detail.clone().unwrap_or_default());
                    }
                }
                _ => self.unknown += 1,
            }
        }
        pending
    }

    /// Whether each replayed reading is in a window, this time or from before.
    fn all_are_counted(&self) -> bool {
        self.unknown == 0 && self.rejected.keys().all(|reason| reason == "duplicate")
    }

    fn summary(&self) -> String {
        let mut text = format!("{} errors: {} replayed, {} refused\n", self.found, self.replayed, self.refused());
        for (outcome, (count, detail)) in &self.refused {
            text.push_str(&format!("  {outcome} {count}: {detail}\n"));
        }
        if self.replayed > 0 {
            text.push_str(&self.effects());
        }
        text
    }

    /// What became of the replayed errors, such as "4 replayed: 2 counted, 2 rejected again: value_out_of_range (2)".
    fn effects(&self) -> String {
        let rejected: u64 = self.rejected.values().map(|(count, _)| count).sum();
        let mut text = format!("{} replayed: {} counted, {rejected} rejected again", self.replayed, self.counted);
        let reasons: Vec<String> =
            self.rejected.iter().map(|(reason, (count, _))| format!("{reason} ({count})")).collect();
        if !reasons.is_empty() {
            text.push_str(&format!(": {}", reasons.join(", ")));
        }
        text.push('\n');
        for (reason, (_, sentence)) in &self.rejected {
            text.push_str(&format!("  {reason}: {sentence}\n"));
        }
        if self.unknown > 0 {
            let unknown = self.unknown;
            text.push_str(&format!(
                "  of {unknown} it is not known what became: look for errors with their replay_of\n"
            ));
        }
        text
    }
}

/// Exits with 1 where a replayed reading is in no window.
async fn replay(mut errors: ErrorPages<'_>) -> anyhow::Result<ExitCode> {
    let mut progress = ReplayProgress::default();
    let done = replay_all(&mut errors, &mut progress).await;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    // The summary comes after a failure too: errors replayed before it stay replayed.
    print!("{}", progress.summary());
    done?;
    Ok(if progress.all_are_counted() { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

async fn replay_all(errors: &mut ErrorPages<'_>, progress: &mut ReplayProgress) -> anyhow::Result<()> {
    // A replayed reading that is rejected again becomes a new error, behind this one. It must not be replayed once
    // more.
    let newest: ErrorsPage = ask(errors.client, "/api/v1/errors?order=desc&limit=1", None::<&()>).await?;
    let newest = newest.errors.first().and_then(|error| error["seq"].as_u64());
    let mut cursor = None;
    while errors.left > 0 {
        let (page, next) = errors.page(cursor.as_deref()).await?;
        let seqs: Vec<u64> = page.iter().filter_map(|error| error["seq"].as_u64()).collect();
        let past_newest = seqs.last().is_some_and(|seq| Some(*seq) > newest);
        let seqs: Vec<u64> = seqs.into_iter().filter(|seq| Some(*seq) <= newest).collect();
        if !seqs.is_empty() {
            progress.found += seqs.len() as u64;
            replay_page(errors.client, seqs, progress).await?;
            show(progress);
        }
        cursor = next;
        if cursor.is_none() || past_newest {
            break;
        }
    }
    Ok(())
}

async fn replay_page(client: &HttpClient, mut seqs: Vec<u64>, progress: &mut ReplayProgress) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        let request = ReplayErrorsRequest { seqs };
        let (replayed, again) = progress.take(ask(client, "/api/v1/errors/replay", Some(&request)).await?);
        effects(client, replayed, progress).await?;
        if again.is_empty() {
            return Ok(());
        }
        seqs = again;
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the journal has had no room for {} errors; look at /readyz and try again", seqs.len())
}

/// Waits until the pipeline has processed these replays, and counts what became of them. Replays that are not processed in
/// time count as not known.
async fn effects(client: &HttpClient, mut seqs: Vec<u64>, progress: &mut ReplayProgress) -> anyhow::Result<()> {
    for _ in 0..EFFECT_ATTEMPTS {
        if seqs.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = seqs.iter().map(u64::to_string).collect();
        let path = format!("/api/v1/errors/replay?seqs={}", list.join(","));
        seqs = progress.take_effects(ask(client, &path, None::<&()>).await?);
        if !seqs.is_empty() {
            tokio::time::sleep(EFFECT_PAUSE).await;
        }
    }
    progress.unknown += seqs.len() as u64;
    Ok(())
}

/// Shows the progress on standard error: one changing line on a terminal, else one line per page.
fn show(progress: &ReplayProgress) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{}", progress.line());
    } else {
        eprintln!("{}", progress.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_escaped() {
        let text = |text: &str| Some(text.to_owned());
        let arguments = ErrorsArguments {
            reason: text("late"),
            device: text("gärät 3&x"),
            from: text("2026-01-01T00:00:00+01:00"),
            to: None,
            limit: None,
            url: None,
            api: Default::default(),
        };
        assert_eq!(
            filters(&arguments),
            "&reason=late&device=g%C3%A4r%C3%A4t%203%26x&from=2026-01-01T00%3A00%3A00%2B01%3A00"
        );
    }

    #[test]
    fn outcomes_are_counted() {
        let answer = br#"{"results": [
            {"seq": 1, "outcome": "replayed", "journal_position": 7},
            {"seq": 2, "outcome": "busy", "detail": "later"},
            {"seq": 3, "outcome": "already_replayed", "detail": "once"},
            {"seq": 4, "outcome": "disk_full", "detail": "later"}
        ]}"#;
        let mut progress = ReplayProgress { found: 4, ..ReplayProgress::default() };
        let taken = progress.take(serde_json::from_slice(answer).expect("results"));
        assert_eq!(taken, (vec![1], vec![2, 4]));
        assert_eq!(progress.line(), "replayed 1, refused 1, of 4 errors so far");
        assert_eq!(
            progress.summary(),
            "4 errors: 1 replayed, 1 refused\n  already_replayed 1: once\n1 replayed: 0 counted, 0 rejected again\n"
        );
        assert!(serde_json::from_str::<ReplayErrorsAnswer>("{}").is_err());
    }

    #[test]
    fn effects_are_counted() {
        let answer = br#"{"results": [
            {"seq": 1, "state": "processed", "counted": 1, "rejected": {}},
            {"seq": 2, "state": "processed", "counted": 0, "rejected": {"late": 1}, "detail": "too late", "new_error": 9},
            {"seq": 3, "state": "processed", "counted": 1, "rejected": {"late": 2, "duplicate": 1}, "detail": "very late"},
            {"seq": 4, "state": "pending"},
            {"seq": 5, "state": "forgotten"}
        ]}"#;
        let mut progress = ReplayProgress { found: 5, replayed: 5, ..ReplayProgress::default() };
        assert!(progress.all_are_counted());
        assert_eq!(progress.take_effects(serde_json::from_slice(answer).expect("results")), [4]);
        assert_eq!(
            progress.summary(),
            "5 errors: 5 replayed, 0 refused\n5 replayed: 2 counted, 4 rejected again: duplicate (1), late (3)\n  \
             duplicate: very late\n  late: very late\n  \
             of 1 it is not known what became: look for errors with their replay_of\n"
        );
        assert!(!progress.all_are_counted());
        let duplicates = [("duplicate".to_owned(), (3, String::new()))].into();
        assert!(ReplayProgress { rejected: duplicates, ..ReplayProgress::default() }.all_are_counted());
    }
}
