//! `weir topics`, over the HTTP API of a running weir.

use std::io::Write;
use std::process::ExitCode;

use serde::Deserialize;

use weir::client::{HttpClient, base_url};
use weir::config::Config;

use crate::cli::TopicsArguments;
use crate::commands::api::ask;
use crate::commands::table::{table, time};

#[derive(Deserialize)]
struct TopicsAnswer {
    topics: Vec<ListedTopic>,
}

#[derive(Deserialize)]
struct ListedTopic {
    topic: String,
    count: u64,
    last_seen: i64,
    client_id: String,
    suggestion: Option<String>,
}

impl ListedTopic {
    /// Topics and client identifiers come from clients. weir takes none with control characters.
    fn row(self) -> [String; 5] {
        let suggestion = self.suggestion.unwrap_or_else(|| "-".into());
        [self.topic, self.count.to_string(), time(self.last_seen), self.client_id, suggestion]
    }
}

/// Prints the topics that are no ingest topics.
///
/// # Errors
/// weir cannot be reached or refuses the request.
pub fn run(arguments: &TopicsArguments, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = HttpClient::new(&base_url(arguments.api.url.as_deref(), config), &arguments.api.access)?;
    let all = if arguments.all { "&all=1" } else { "" };
    let path = format!("/api/v1/topics?unmatched=1{all}&limit={}", arguments.limit);
    let TopicsAnswer { topics } = runtime.block_on(ask(&client, &path, None::<&()>))?;
    let mut rows = vec![["TOPIC", "COUNT", "LAST SEEN", "CLIENT", "SUGGESTION"].map(str::to_owned)];
    rows.extend(topics.into_iter().map(ListedTopic::row));
    std::io::stdout().lock().write_all(table(&rows).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
