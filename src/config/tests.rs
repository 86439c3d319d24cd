use super::document::Document;
use super::*;
use crate::core::settings::Settings;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse("weir.toml", text, environment)
}

/// The faults of a configuration, one per line, are exactly these.
#[track_caller]
fn check(text: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let faults = match parse(text, environment) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    assert_eq!(faults.lines().collect::<Vec<_>>(), expected);
}

#[track_caller]
fn good(text: &str, environment: &[(&str, &str)]) -> Config {
    parse(text, environment).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn default_settings_agree() {
    let settings = Config::default().settings();
    assert!(!settings.maps.is_empty(), "presets are on by default");
    assert_eq!(Settings { maps: Vec::new(), ..settings }, Settings::default());
}

#[test]
fn nothing_set_is_the_default_and_the_hosts_name() {
    let mut config = good("", &[]);
    assert!(!config.node.name.is_empty());
    config.node.name.clear();
    assert_eq!(config, Config::default());
}

/// Simulated readings must not get among those of real devices because a config says nothing about the simulator.
#[test]
fn a_config_that_does_not_name_the_simulator_runs_none() {
    for text in ["", "[simulator]\ndevices = 5\n"] {
        let config = Config::parse("weir.toml", text, std::iter::empty()).expect("a right config");
        assert!(!config.simulator.enabled, "{text:?}");
    }
}

#[test]
fn the_shipped_file_holds_every_key_at_its_default_but_runs_the_simulator() {
    let text = include_str!("../../config.toml");
    let mut config = Config::parse("config.toml", text, std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    config.node.name.clear();
    assert!(config.simulator.enabled, "`cargo run` in the source tree shows simulated devices");
    config.simulator.enabled = false;
    assert_eq!(config, Config::default());
    let document = Document::read("config.toml", text);
    let missing: Vec<_> = keys::KEYS
        .iter()
        .map(|key| format!("{}.{}", key.section, key.name))
        .filter(|key| !document.is_set(key))
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "keys that config.toml does not show");
}

#[test]
fn every_key_of_the_shipped_file_has_a_comment_of_its_own() {
    let text = include_str!("../../config.toml");
    let lines: Vec<&str> = text.lines().collect();
    let keys = lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'));
    let bare: Vec<_> = keys.filter(|(index, _)| *index == 0 || !lines[index - 1].starts_with("# ")).collect();
    assert_eq!(bare, Vec::new());
}

#[test]
fn values_reach_their_fields() {
    let text = r#"
        [mqtt]
        listen = "0.0.0.0:1884"
        allow_anonymous = true
        max_packet_size = "64KiB"
        [window]
        size = "250ms"
        idle_timeout = "off"
        watermark = "global"
        backlog = "off"
        [limits]
        backlog_windows_per_device = 16
        backlog_windows = 2048
        [validate]
        max_age = "off"
        [validate.metrics.temperature]
        min = -40
        max = 12.5
        unit = "celsius"
        [validate.metrics."Motor.rpm"]
    "#;
    let config = good(text, &[]);
    assert_eq!(config.mqtt.listen.to_string(), "0.0.0.0:1884");
    assert_eq!(config.mqtt.max_packet_size_bytes, 65_536);
    assert_eq!(config.window.size_ms, 250);
    assert_eq!(config.window.idle_timeout_ms, None);
    assert_eq!(config.validate.max_age_ms, None);
    assert_eq!(config.settings().watermark, crate::core::settings::WatermarkScope::Global);
    assert!(!config.settings().backlog);
    let settings = config.settings();
    assert_eq!((settings.max_backlog_windows_per_device, settings.max_backlog_windows), (16, 2_048));
    let range = &config.validate.metrics["temperature"];
    assert_eq!((range.min, range.max, range.unit.as_deref()), (Some(-40.0), Some(12.5), Some("celsius")));
    assert_eq!(config.validate.metrics["Motor.rpm"], Default::default());
}

#[test]
fn the_environment_wins() {
    let text = "[mqtt]\nlisten = \"127.0.0.1:1\"\n[validate.metrics.Motor]\nmin = 1\n";
    let config = good(
        text,
        &[
            ("WEIR_MQTT__LISTEN", "127.0.0.1:2"),
            ("WEIR_INGEST__TELEMETRY_TOPICS", "a/+, b/+"),
            ("WEIR_VALIDATE__METRICS__TEMPERATURE__MAX", "90"),
            ("WEIR_VALIDATE__METRICS__MOTOR__MAX", "5"),
            ("WEIR_SIMULATOR__ENABLED", "true"),
            ("WEIR_NODE__NAME", "box 7"),
            ("WEIR_CONFIG", "elsewhere.toml"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(config.mqtt.listen.port(), 2);
    assert_eq!(config.ingest.telemetry_topics, ["a/+", "b/+"]);
    assert_eq!(config.validate.metrics["temperature"].max, Some(90.0));
    assert_eq!((config.validate.metrics["Motor"].min, config.validate.metrics["Motor"].max), (Some(1.0), Some(5.0)));
    assert!(config.simulator.enabled);
    assert_eq!(config.node.name, "box 7");
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    check(
        "",
        &[
            ("WEIR_MQTT__LISTN", "x"),
            ("WEIR_MQTT__MAX_CONNECTIONS", "many"),
            ("WEIR_KAFKA__URL", "x"),
            ("WEIR_MQTT__A__B", "x"),
            ("WEIR_VALIDATE__METRICS__T__STEP", "1"),
        ],
        &[
            "WEIR_KAFKA__URL: kafka.url: there is no such setting; expected WEIR_SECTION__KEY with a section and a key of config.toml",
            "WEIR_MQTT__A__B: mqtt.a.b: there is no such setting; expected WEIR_SECTION__KEY with a section and a key of config.toml",
            "WEIR_MQTT__LISTN: mqtt.listn: there is no such key; expected a key of config.toml; did you mean mqtt.listen?",
            "WEIR_MQTT__MAX_CONNECTIONS: mqtt.max_connections: \"many\" is not such a number; expected a whole number from 1 to 1000000",
            "WEIR_VALIDATE__METRICS__T__STEP: validate.metrics.t.step: there is no such key; expected min, max or unit",
        ],
    );
}

#[test]
fn all_faults_at_once_in_the_order_of_the_file() {
    check(
        "[simulator]\nqos = 3\nfault_share = 1.5\n[windw]\n[window]\nsize = 5\nidle_timeout = \"soon\"\n[mqtt]\n\
         listen = \"localhost\"\nmax_packet_size = 262144\nallow_anonymous = \"yes\"\n[log]\nlevel = \"inof\"\nformat = \"xml\"\n",
        &[],
        &[
            "weir.toml:2: simulator.qos: 3 is out of range; expected a whole number from 0 to 2",
            "weir.toml:3: simulator.fault_share: 1.5 is not a share; expected a number from 0 (none) to 1 (all), such as 0.01 for one in a hundred",
            "weir.toml:4: windw: there is no such section; expected a section of config.toml; did you mean window?",
            "weir.toml:6: window.size: 5 has no unit; expected a duration such as \"250ms\", \"5s\", \"1m\", \"24h\" or \"7d\"",
            "weir.toml:7: window.idle_timeout: \"soon\" is not a duration; expected a duration such as \"250ms\", \"5s\", \"1m\", \"24h\" or \"7d\", or \"off\"",
            "weir.toml:9: mqtt.listen: \"localhost\" is not an address; expected an IP address and a port such as \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::1]:1883\"",
            "weir.toml:10: mqtt.max_packet_size: 262144 has no unit; expected a size such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"",
            "weir.toml:11: mqtt.allow_anonymous: \"yes\" is not a boolean; expected true, false or \"auto\"",
            "weir.toml:13: log.level: \"inof\" is not a level; expected a level (off, error, warn, info, debug, trace) or directives such as \"info,weir::mqtt=debug\"; did you mean \"info\"?",
            "weir.toml:14: log.format: \"xml\" is not one of the choices; expected \"text\", \"json\", \"journald\"",
        ],
    );
}

#[test]
fn sections_and_keys_in_the_wrong_place() {
    check(
        "mqtt = 5\nlisten = \"x\"\n[validate]\nmetrics = 1\n[[window]]\nsize = \"5s\"\n",
        &[],
        &[
            "weir.toml:1: mqtt: this is a section and needs a table; expected [mqtt] with its keys below",
            "weir.toml:2: listen: there is no such section; expected a section of config.toml",
            "weir.toml:4: validate.metrics: it is not a table of metrics; expected [validate.metrics.NAME] with min, max or unit below",
            "weir.toml:5: window: this is a section and needs a table; expected [window] with its keys below",
        ],
    );
}

#[test]
fn syntax_errors_have_a_line_and_do_not_hide_the_rest() {
    let errors = parse("[mqtt]\nlisten = \n[window]\nsize = 7\nsize = \"5s\"\n", &[]).expect_err("three faults");
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("weir.toml:2: "), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("weir.toml:4: window.size: 7 has no unit")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("weir.toml:5: duplicate key")), "{lines:?}");
}

#[test]
fn sizes_must_fit_into_each_other() {
    check(
        "[mqtt]\nmax_packet_size = \"4MiB\"\n[journal]\nsegment_size = \"1MiB\"\n",
        &[],
        &[
            "weir.toml: journal.commit_max_bytes: 4194304 bytes do not fit into a segment of 1048576 bytes; expected at most journal.segment_size",
            "weir.toml:2: mqtt.max_packet_size: 4194304 bytes do not fit into a group commit of 4194304 bytes; expected at most journal.commit_max_bytes less 256KiB",
        ],
    );
}

#[test]
fn a_long_list_of_devices_must_fit_into_a_commit() {
    let devices: Vec<String> = (0..30_000).map(|number| format!("'{}-{number}'", "x".repeat(100))).collect();
    let text =
        format!("[journal]\ncommit_max_bytes = \"2MiB\"\n[validate]\nallowed_devices = [{}]\n", devices.join(","));
    let errors = parse(&text, &[]).expect_err("the list does not fit").to_string();
    assert!(errors.starts_with("weir.toml:4: validate.allowed_devices: the list comes to 32"), "{errors}");
}

const ANYBODY: &str = "and clients need no credentials; expected mqtt.auth.users or client certificates, or mqtt.allow_anonymous = true or false; only loopback listeners may let anybody in without saying so";

#[test]
fn an_open_listener_must_say_that_anyone_may_connect() {
    // The rules of the HTTP API itself are tested below.
    let open_http = ("WEIR_HTTP__ALLOW_ANONYMOUS", "true");
    let reached = "can be reached from other machines";
    let over_http = format!("{reached} (MQTT over WebSocket is on its path /mqtt)");
    check(
        "[mqtt]\nlisten = \"0.0.0.0:1883\"\n",
        &[],
        &[&format!("weir.toml:2: mqtt.listen: 0.0.0.0:1883 {reached} {ANYBODY}")],
    );
    check(
        "[mqtt]\nallow_anonymous = \"auto\"\n[http]\nlisten = \"[::]:80\"\n",
        &[open_http],
        &[&format!("weir.toml:4: http.listen: [::]:80 {over_http} {ANYBODY}")],
    );
    check(
        "[mqtt.tls]\nlisten = \"0.0.0.0:1\"\ncert = \"c\"\nkey = \"k\"\n[http.tls]\nlisten = \"0.0.0.0:2\"\ncert = \"c\"\nkey = \"k\"\n",
        &[open_http],
        &[
            &format!("weir.toml:2: mqtt.tls.listen: 0.0.0.0:1 {reached} {ANYBODY}"),
            &format!("weir.toml:6: http.tls.listen: 0.0.0.0:2 {over_http} {ANYBODY}"),
        ],
    );
    good("[mqtt]\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = false\n", &[]);
    good("", &[("WEIR_MQTT__LISTEN", "0.0.0.0:1883"), ("WEIR_MQTT__ALLOW_ANONYMOUS", "true")]);
    let users = good("[mqtt]\nlisten = \"0.0.0.0:1883\"\nauth.users = \"users\"\n", &[]);
    assert!(!users.mqtt.allows_anonymous());
    assert!(good("", &[]).mqtt.allows_anonymous());
    let both = good("[mqtt]\nallow_anonymous = true\nauth.users = \"users\"\n", &[]);
    assert!(both.mqtt.allows_anonymous());
}

#[test]
fn certificates_are_credentials() {
    let tls = "listen = \"0.0.0.0:1\"\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\nclient_certificates = ";
    for asked in ["\"optional\"", "\"required\""] {
        let config = good(&format!("[mqtt.tls]\n{tls}{asked}\n"), &[]);
        assert!(!config.mqtt.allows_anonymous(), "{asked}");
    }
    let off = good("[mqtt.tls]\nclient_certificates = \"required\"\n", &[]);
    assert!(off.mqtt.allows_anonymous(), "the listener is off");
}

#[test]
fn the_simulator_has_no_credentials() {
    check(
        "[mqtt.auth]\nusers = \"users\"\n[simulator]\nenabled = true\n",
        &[],
        &[
            "weir.toml:4: simulator.enabled: the simulator connects without credentials, and such clients are not allowed to connect; expected false, or mqtt.allow_anonymous = true",
        ],
    );
}

#[test]
fn an_http_listener_for_others_must_ask_for_tokens_or_say_that_it_does_not() {
    let expected = "can be reached from other machines and requests need no token; expected http.auth.tokens, or \
                    http.allow_anonymous = true; only loopback listeners may be open to everybody without saying so";
    // MQTT over WebSocket comes through these listeners too.
    let mqtt = [("WEIR_MQTT__ALLOW_ANONYMOUS", "true")];
    let plain = format!("weir.toml:2: http.listen: 0.0.0.0:80 {expected}");
    let secure = format!("weir.toml:2: http.tls.listen: [::]:443 {expected}");
    check("[http]\nlisten = \"0.0.0.0:80\"\n", &mqtt, &[&plain]);
    check("[http]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = \"auto\"\n", &mqtt, &[&plain]);
    let tls = "[http.tls]\nlisten = \"[::]:443\"\ncert = \"c\"\nkey = \"k\"\n";
    check(tls, &mqtt, &[&secure]);
    let nobody = "http.allow_anonymous: it is false and there are no tokens, so nobody could use the API; \
                  expected http.auth.tokens, or http.allow_anonymous = true";
    check("[http]\nallow_anonymous = false\n", &mqtt, &[&format!("weir.toml:2: {nobody}")]);
    let open = good("[http]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = true\n", &mqtt);
    assert!(open.http.allows_anonymous());
    let asked = good("[http]\nlisten = \"0.0.0.0:80\"\n[http.auth]\ntokens = \"t\"\n", &mqtt);
    assert!(!asked.http.allows_anonymous());
    assert!(good("", &mqtt).http.allows_anonymous());
    let both = good("[http]\nallow_anonymous = true\n[http.auth]\ntokens = \"t\"\nmetrics = \"open\"\n", &mqtt);
    assert_eq!((both.http.allows_anonymous(), both.http.auth.metrics), (true, MetricsAccess::Open));
}

#[test]
fn listeners_and_topics_do_not_collide() {
    check(
        "[ingest]\ntelemetry_topics = [\"d/+\", \"d/#\"]\nerror_topics = [\"+/x\", \"d/e\"]\n[http]\nlisten = \"127.0.0.1:1883\"\n",
        &[],
        &[
            "weir.toml:2: ingest.telemetry_topics: \"d/#\" holds a #; expected a topic such as \"devices/+/telemetry\"",
            "weir.toml:3: ingest.error_topics: \"+/x\" reaches below weir/ or $, where clients cannot publish; expected a topic such as \"devices/+/telemetry\"",
            "weir.toml:3: ingest.error_topics: \"+/x\" and \"d/+\" of ingest.telemetry_topics can be the same topic; expected topics that no topic of readings matches",
            "weir.toml:3: ingest.error_topics: \"d/e\" and \"d/+\" of ingest.telemetry_topics can be the same topic; expected topics that no topic of readings matches",
            "weir.toml:5: http.listen: 127.0.0.1:1883 is taken by mqtt.listen = \"127.0.0.1:1883\"; expected another port",
        ],
    );
}

#[test]
fn names_and_ranges() {
    check(
        "[validate]\nallowed_devices = [\"ok\", \"a/b\"]\n[validate.metrics.t]\nmin = 5\nmax = 1\n[validate.metrics.\"a b\"]\n\
         [simulator]\nmetrics = []\n",
        &[],
        &[
            "weir.toml:2: validate.allowed_devices: \"a/b\" cannot be a device id; expected 1 to 128 bytes without control characters, /, + and #, and without white space at either end",
            "weir.toml:4: validate.metrics.t.min: 5 is above max = 1; expected min at or below max",
            "weir.toml:6: validate.metrics.a b: \"a b\" cannot be a metric; expected 1 to 64 characters of A-Z a-z 0-9 . _ : / -",
            "weir.toml:8: simulator.metrics: it is empty; expected at least one metric",
        ],
    );
}

#[test]
fn allowed_hosts_are_hosts() {
    check(
        "[http]\nallowed_hosts = [\"ok\", \"http://box\", \"box:8080\", \"*.plant.example\", \"10.0.0.1\"]\n",
        &[("WEIR_HTTP__ALLOWED_HOSTS", "a b")],
        &[
            "weir.toml:2: http.allowed_hosts: \"http://box\", \"box:8080\" are not hosts; expected host names such as \"box.local\", \"*.example.org\" for all names below example.org, IP addresses, or \"*\" for any; without scheme and port",
            "WEIR_HTTP__ALLOWED_HOSTS: http.allowed_hosts: \"a b\" is not a host; expected host names such as \"box.local\", \"*.example.org\" for all names below example.org, IP addresses, or \"*\" for any; without scheme and port",
        ],
    );
    assert_eq!(good("[http]\nallowed_hosts = [\"*\"]\n", &[]).http.allowed_hosts, [HostPattern::Any]);
}

#[test]
fn windows_are_between_a_millisecond_and_a_day() {
    check(
        "[window]\nsize = \"0s\"\n",
        &[],
        &["weir.toml:2: window.size: \"0s\" is out of range; expected a duration from \"1ms\" to \"1d\""],
    );
    assert_eq!(good("[window]\nsize = \"24h\"\n", &[]).window.size_ms, 86_400_000);
}

#[test]
fn a_file_that_is_not_there_is_a_fault_with_its_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("none.toml");
    let errors = ReadConfig::load(Some(&path), std::iter::empty()).into_config().expect_err("no such file").to_string();
    assert!(errors.starts_with(&format!("{}: cannot be read: ", path.display())), "{errors}");
    assert!(ReadConfig::load(Some(dir.path()), std::iter::empty()).into_config().is_err(), "a directory");
    std::fs::write(&path, "[dedup]\nenabled = false\n").expect("a file");
    assert!(!ReadConfig::load(Some(&path), std::iter::empty()).into_config().expect("a good file").dedup.enabled);
    assert!(ReadConfig::load(None, std::iter::empty()).into_config().expect("defaults").dedup.enabled);
}
