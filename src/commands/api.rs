//! Requests of commands to the HTTP API of a running weir.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use weir::client::HttpClient;

/// Attempts of a request that weir answers with "try again".
pub const ATTEMPTS: usize = 60;
/// Time between two attempts.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Sends a request, again and again while weir answers "try again" (503), and reads the answer. With a body it is a POST.
///
/// # Errors
/// weir cannot be reached, refuses the request, or answers in an unknown form.
pub async fn ask<T: DeserializeOwned>(
    client: &HttpClient,
    path: &str,
    body: Option<&impl Serialize>,
) -> anyhow::Result<T> {
    let base = client.base();
    let mut attempt = 1;
    loop {
        let answered = match body {
            None => client.get(path).await,
            Some(body) => client.post(path, serde_json::to_vec(body)?.into()).await,
        };
        // Without its source: the exit code would call an I/O error of the network a disk error.
        let response = answered.map_err(|error| anyhow!("{error}"))?;
        if let Some(refusal) = client.access_refusal(&response) {
            bail!("{refusal}");
        }
        match response.status {
            200 => {
                return serde_json::from_slice(&response.body).map_err(|error| {
                    anyhow!("{base}{path} answered in an unknown form ({error}); is it a weir of this version?")
                });
            }
            503 if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            status => bail!("{base}{path}: {status}: {}", response.detail()),
        }
        attempt += 1;
    }
}
