//! `weir check`: looks at everything that a start would load, and reports every fault at once. Nothing is started and
//! nothing is written.

use std::path::Path;
use std::process::ExitCode;

use weir::access::Policy;
use weir::access::http_access::HttpPolicy;
use weir::clock::{Clock as _, SystemClock};
use weir::config::{CheckReport, Config, ConfigErrors};
use weir::tls;

use crate::app::access::open_listeners;
use crate::app::http_access;
use crate::exit;

/// Prints warnings and faults of the configuration, which was read from `path`, and of the files that it names.
pub fn run(config: &Config, path: Option<&Path>) -> ExitCode {
    let name = path.map_or_else(|| "defaults".into(), |path| path.display().to_string());
    let findings = check(config);
    for warning in &findings.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    for fault in &findings.faults {
        eprintln!("{name}: {fault}");
    }
    if !findings.faults.is_empty() {
        return ExitCode::from(exit::CONFIG);
    }
    println!("{name}: ok");
    ExitCode::SUCCESS
}

fn check(config: &Config) -> CheckReport {
    let mut all = CheckReport::default();
    for CheckReport { faults, warnings } in [check_tls(config), check_mqtt_access(config), check_http_access(config)] {
        all.faults.extend(faults);
        all.warnings.extend(warnings);
    }
    all
}

/// Certificates and keys of the TLS listeners that are on.
fn check_tls(config: &Config) -> CheckReport {
    let sections = [
        ("mqtt.tls", config.mqtt.tls.listen, &config.mqtt.tls.files),
        ("http.tls", config.http.tls.listen, &config.http.tls.files),
    ];
    let mut all = CheckReport::default();
    for (section, _, files) in sections.into_iter().filter(|(_, listen, _)| listen.is_some()) {
        let CheckReport { faults, warnings } = tls::check(files, SystemClock.now_ms());
        all.faults.extend(faults.into_iter().map(|fault| format!("{section}: {fault}")));
        all.warnings.extend(warnings.into_iter().map(|warning| format!("{section}: {warning}")));
    }
    all
}

/// Users file, ACL file and client certificates of MQTT.
fn check_mqtt_access(config: &Config) -> CheckReport {
    let (faults, mut warnings) = match Policy::load(config) {
        Ok(policy) => (Vec::new(), policy.warnings),
        Err(ConfigErrors(faults)) => (faults.iter().map(ToString::to_string).collect(), Vec::new()),
    };
    warnings.extend(open_listeners(config));
    CheckReport { faults, warnings }
}

/// The tokens file of the HTTP API.
fn check_http_access(config: &Config) -> CheckReport {
    match HttpPolicy::load(&config.http) {
        Ok(policy) => CheckReport { warnings: policy.warnings(&config.http), ..CheckReport::default() },
        Err(error) => CheckReport { faults: http_access::faults(error).collect(), ..CheckReport::default() },
    }
}
