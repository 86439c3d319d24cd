//! `weir errors list` and `weir errors replay`: the errors log of a running weir.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use weir::client::{HttpClient, HttpResponse, base_url, percent_encoded};
use weir::config::Config;

use crate::cli::{ErrorsArguments, ErrorsCommand};

/// Errors of one page, and of one request to replay them.
const PAGE: u64 = 1_000;
/// How often a request is made that is answered with "try again", one second apart.
const ATTEMPTS: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Runs one of the commands.
pub fn run(command: &ErrorsCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let (ErrorsCommand::List(arguments) | ErrorsCommand::Replay(arguments)) = command;
    let client = HttpClient::new(&base_url(arguments.url.as_deref(), config), &arguments.api)?;
    let errors = ErrorPages { client: &client, filters: filters(arguments), left: arguments.limit.unwrap_or(u64::MAX) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        ErrorsCommand::List(_) => runtime.block_on(list(errors))?,
        ErrorsCommand::Replay(_) => runtime.block_on(replay(errors))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn filters(arguments: &ErrorsArguments) -> String {
    let ErrorsArguments { reason, device, from, to, .. } = arguments;
    let named = [("reason", reason), ("device", device), ("from", from), ("to", to)];
    let given = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!("&{name}={}", percent_encoded(value))).collect()
}

/// The errors asked for.
struct ErrorPages<'a> {
    client: &'a HttpClient,
    filters: String,
    /// How many more of them at most.
    left: u64,
}

impl ErrorPages<'_> {
    /// The next page, and where the one after it begins.
    async fn page(&mut self, cursor: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let limit = PAGE.min(self.left).max(1);
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/api/v1/errors?limit={limit}{}{cursor}", self.filters);
        let mut page = ask(self.client, &path, None).await?;
        let Some(Value::Array(mut errors)) = page.get_mut("errors").map(Value::take) else {
            bail!("{}{path} is not a list of errors; is it a weir of this version?", self.client.base());
        };
        errors.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= errors.len() as u64;
        let next = page["next_cursor"].as_str().filter(|_| self.left > 0).map(str::to_owned);
        Ok((errors, next))
    }
}

/// Asks until the answer is not "try again".
async fn ask(client: &HttpClient, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let mut attempt = 1;
    loop {
        let answered = match body {
            None => client.get(path).await,
            Some(body) => client.post(path, body.to_string().into()).await,
        };
        // Without its source: that nobody answers is no failure of a disk, which the exit code would say.
        let response = answered.map_err(|error| anyhow!("{error}"))?;
        if let Some(refused) = client.refused(&response) {
            bail!("{refused}");
        }
        let HttpResponse { status, body: answer } = response;
        let base = client.base();
        let answer: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{base}{path} answered {status} without JSON; is it a weir?"))?;
        match status {
            200 => return Ok(answer),
            503 if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            _ => {
                bail!("{base}{path}: {status}: {}", answer["detail"].as_str().unwrap_or("no reason given"))
            }
        }
        attempt += 1;
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

/// What came of the errors so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReplayProgress {
    found: u64,
    replayed: u64,
    /// By what the answers call it, with the last sentence about it.
    refused: BTreeMap<String, (u64, String)>,
}

impl ReplayProgress {
    fn refused(&self) -> u64 {
        self.refused.values().map(|(count, _)| count).sum()
    }

    fn line(&self) -> String {
        format!("replayed {}, refused {}, of {} errors so far", self.replayed, self.refused(), self.found)
    }

    /// Takes one answer; the errors in it that are to be tried again.
    fn take(&mut self, answer: &Value) -> anyhow::Result<Vec<u64>> {
        let results =
            answer["results"].as_array().context("the answer has no results; is it a weir of this version?")?;
        let mut again = Vec::new();
        for result in results {
            match (result["outcome"].as_str(), result["seq"].as_u64()) {
                (Some("replayed"), _) => self.replayed += 1,
                (Some("busy" | "disk_full"), Some(seq)) => again.push(seq),
                (outcome, _) => {
                    let entry = self.refused.entry(outcome.unwrap_or("unknown").to_owned()).or_default();
                    entry.0 += 1;
                    entry.1 = result["detail"].as_str().unwrap_or_default().to_owned();
                }
            }
        }
        Ok(again)
    }

    fn summary(&self) -> String {
        let mut text = format!("{} errors: {} replayed, {} refused\n", self.found, self.replayed, self.refused());
        for (outcome, (count, detail)) in &self.refused {
            text.push_str(&format!("  {outcome} {count}: {detail}\n"));
        }
        text
    }
}

async fn replay(mut errors: ErrorPages<'_>) -> anyhow::Result<()> {
    let mut progress = ReplayProgress::default();
    let done = replay_all(&mut errors, &mut progress).await;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    // Said also where it could not be finished: what was replayed is.
    print!("{}", progress.summary());
    done
}

async fn replay_all(errors: &mut ErrorPages<'_>, progress: &mut ReplayProgress) -> anyhow::Result<()> {
    // What is rejected again while this runs comes behind the newest error of now.
    let newest = ask(errors.client, "/api/v1/errors?order=desc&limit=1", None).await?;
    let newest = newest["errors"][0]["seq"].as_u64();
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
        let answer = ask(client, "/api/v1/errors/replay", Some(&json!({ "seqs": seqs }))).await?;
        seqs = progress.take(&answer)?;
        if seqs.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the journal has had no room for {} errors; look at /readyz and try again", seqs.len())
}

/// On a terminal one line that changes, else a line per page.
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
        let answer = json!({"results": [
            {"seq": 1, "outcome": "replayed", "journal_position": 7},
            {"seq": 2, "outcome": "busy", "detail": "later"},
            {"seq": 3, "outcome": "already_replayed", "detail": "once"},
            {"seq": 4, "outcome": "disk_full", "detail": "later"},
        ]});
        let mut progress = ReplayProgress { found: 4, ..ReplayProgress::default() };
        assert_eq!(progress.take(&answer).expect("results"), [2, 4]);
        assert_eq!(progress.line(), "replayed 1, refused 1, of 4 errors so far");
        assert_eq!(progress.summary(), "4 errors: 1 replayed, 1 refused\n  already_replayed 1: once\n");
        assert!(progress.take(&json!({})).is_err());
    }
}
