//! `weir device list` and `weir device forget`, over the HTTP API of a running weir.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use weir::client::{HttpClient, base_url, percent_encoded};
use weir::config::Config;

use crate::cli::{DeviceApi, DeviceChoice, DeviceCommand, DeviceForgetArguments, DeviceListArguments};
use crate::commands::api::ask;
use crate::commands::table::{table, time};

/// Devices of one page of a list, and of one request to forget devices.
const PAGE: usize = 500;
/// Devices of a list that is not by id, where no limit is given.
const TOP: usize = 100;

/// Runs `weir device list` or `weir device forget`.
///
/// # Errors
/// weir cannot be reached or refuses a request, or a device is not known.
pub fn run(command: &DeviceCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        DeviceCommand::List(arguments) => runtime.block_on(list(&client(&arguments.api, config)?, arguments))?,
        DeviceCommand::Forget(arguments) => runtime.block_on(forget(&client(&arguments.api, config)?, arguments))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn client(api: &DeviceApi, config: &Config) -> anyhow::Result<HttpClient> {
    Ok(HttpClient::new(&base_url(api.url.as_deref(), config), &api.access)?)
}

/// A page of the list.
#[derive(Deserialize)]
struct DevicesPage {
    devices: Vec<ListedDevice>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct ListedDevice {
    device_id: String,
    user: Option<String>,
    first_seen: Option<i64>,
    last_seen: i64,
    metric_count: usize,
}

impl ListedDevice {
    fn row(&self) -> [String; 5] {
        let user = self.user.clone().unwrap_or_else(|| "-".into());
        let first_seen = self.first_seen.map_or("-".into(), time);
        [self.device_id.clone(), user, first_seen, time(self.last_seen), self.metric_count.to_string()]
    }
}

/// Unix milliseconds of the time this long ago.
fn ago_ms(silent_for: Duration) -> i64 {
    let ms = i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::now().as_millisecond().saturating_sub(ms)
}

async fn list(client: &HttpClient, arguments: &DeviceListArguments) -> anyhow::Result<()> {
    let order = match (arguments.new, arguments.silent) {
        (true, _) => "&order=newest",
        (_, true) => "&order=silent",
        _ => "",
    };
    let mut left = arguments.limit.unwrap_or(if order.is_empty() { usize::MAX } else { TOP });
    if left > 1_000 && !order.is_empty() {
        bail!("--new and --silent list at most 1000 devices; give --limit 1000 or less");
    }
    let filter = filter(&arguments.choice);
    let page = if order.is_empty() { PAGE } else { 1_000 };
    let mut rows = vec![["DEVICE", "USER", "FIRST SEEN", "LAST SEEN", "METRICS"].map(str::to_owned)];
    let mut cursor = String::new();
    while left > 0 {
        let path = format!("/api/v1/devices?limit={}{filter}{order}{cursor}", page.min(left));
        let DevicesPage { devices, next_cursor } = ask(client, &path, None::<&()>).await?;
        left -= devices.len().min(left);
        rows.extend(devices.iter().map(ListedDevice::row));
        let Some(next) = next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    out.write_all(table(&rows).as_bytes())?;
    Ok(out.flush()?)
}

fn filter(choice: &DeviceChoice) -> String {
    let user = choice.user.as_deref().map(|user| format!("&user={}", percent_encoded(user)));
    let anonymous = choice.anonymous.then(|| "&anonymous=1".to_owned());
    let silent = choice.silent_for.map(|time| format!("&last_seen_before={}", ago_ms(time)));
    [user, anonymous, silent].into_iter().flatten().collect()
}

/// Body of a request to forget devices.
#[derive(Serialize)]
struct ForgetDevicesRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    anonymous: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_before: Option<i64>,
}

#[derive(Deserialize)]
struct ForgetDevicesAnswer {
    forgotten: usize,
    unknown: Vec<String>,
    more: bool,
}

async fn forget(client: &HttpClient, arguments: &DeviceForgetArguments) -> anyhow::Result<()> {
    let (mut forgotten, mut unknown) = (0, Vec::new());
    let DeviceForgetArguments { ids, choice, .. } = arguments;
    let last_seen_before = choice.silent_for.map(ago_ms);
    let chosen = |devices| ForgetDevicesRequest {
        devices,
        user: choice.user.as_deref(),
        anonymous: choice.anonymous,
        last_seen_before,
    };
    let mut parts = ids.chunks(PAGE);
    loop {
        let devices = parts.next();
        if devices.is_none() && !ids.is_empty() {
            break;
        }
        let answer: ForgetDevicesAnswer = ask(client, "/api/v1/devices/forget", Some(&chosen(devices))).await?;
        forgotten += answer.forgotten;
        unknown.extend(answer.unknown);
        if ids.is_empty() && !answer.more {
            break;
        }
    }
    println!("{forgotten} {} forgotten", if forgotten == 1 { "device" } else { "devices" });
    match &unknown[..] {
        [] => Ok(()),
        unknown => bail!("there is no device {}; `weir device list` shows those that weir knows", unknown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 5]| cells.map(str::to_owned);
        let device = ListedDevice {
            device_id: "gärät".into(),
            user: None,
            first_seen: Some(1_732_098_765_123),
            last_seen: 1_732_098_766_999,
            metric_count: 3,
        };
        assert_eq!(
            table(&[row(["DEVICE", "USER", "F", "L", "METRICS"]), device.row()]),
            "DEVICE  USER  F                     L                     METRICS\n\
             gärät   -     2024-11-20T10:32:45Z  2024-11-20T10:32:46Z  3\n"
        );
    }
}
