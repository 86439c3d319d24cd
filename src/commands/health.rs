//! `weir health`: asks a running weir for its health, for the health checks of containers.

use std::process::ExitCode;

use weir::client::{HttpClient, base_url};
use weir::config::Config;

use crate::cli::HealthArguments;

/// Returns exit code 0 when weir is healthy, else 1 with the failed checks on standard error.
///
/// # Errors
/// The URL, the token or the certificate authorities cannot be used.
pub fn run(arguments: &HealthArguments, config: &Config) -> anyhow::Result<ExitCode> {
    let url = base_url(arguments.url.as_deref(), config);
    let client = HttpClient::new(&url, &arguments.api)?;
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = match runtime.block_on(client.get(path)) {
        Ok(response) => response,
        Err(error) => {
            eprintln!("weir: no answer from {url}{path}: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let body = String::from_utf8_lossy(&response.body).into_owned();
    if response.status == 200 {
        println!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} {body}", response.status);
    Ok(ExitCode::FAILURE)
}
