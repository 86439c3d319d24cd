//! The files that a configuration names: certificates, keys, revocation lists, users, access rules, tokens.

use weir::access::Policy;
use weir::clock::{Clock as _, SystemClock};
use weir::config::{CheckReport, Config, ConfigErrors, ReadConfig};
use weir::tls;

use crate::app::access::open_listeners;
use crate::app::http_access;

/// Checks the files of every section whose keys are right.
pub fn check(read: &ReadConfig) -> CheckReport {
    read.config().map_or_else(CheckReport::default, |config| check_where(config, |section| read.is_right(section)))
}

/// All faults of the files that a right configuration names.
pub fn file_faults(config: &Config) -> Vec<String> {
    check_where(config, |_| true).faults
}

fn check_where(config: &Config, is_right: impl Fn(&str) -> bool) -> CheckReport {
    let mut all = CheckReport::default();
    let mut add = |CheckReport { faults, warnings }: CheckReport| {
        all.faults.extend(faults);
        all.warnings.extend(warnings);
    };
    let endpoints = [
        ("mqtt.tls", config.mqtt.tls.listen, &config.mqtt.tls.files),
        ("http.tls", config.http.tls.listen, &config.http.tls.files),
    ];
    for (section, _, files) in
        endpoints.into_iter().filter(|(section, listen, _)| listen.is_some() && is_right(section))
    {
        let CheckReport { faults, warnings } = tls::check(files, SystemClock.now_ms());
        let named = |texts: Vec<String>| texts.into_iter().map(|text| format!("{section}: {text}")).collect();
        add(CheckReport { faults: named(faults), warnings: named(warnings) });
    }
    if is_right("mqtt.auth") {
        add(check_mqtt_access(config));
    }
    if is_right("http.auth") {
        add(check_http_access(config));
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
    match http_access::policy(config) {
        Ok(policy) => CheckReport { warnings: policy.warnings(&config.http), ..CheckReport::default() },
        Err(error) => CheckReport { faults: http_access::faults(error).collect(), ..CheckReport::default() },
    }
}
