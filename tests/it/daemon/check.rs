//! `weir check`: all faults at once, those of files and of the machine included, and as the user of the service meets them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Output;

use crate::WEIR;
use crate::daemon::text;
use weir_test_kit::process::Weir;

const CONFIG: i32 = 78;

/// A user id that owns nothing on the machine.
const SOMEBODY: u32 = 54_321;

fn run(weir: &Weir, arguments: &[&str]) -> Output {
    weir.command(arguments).current_dir(weir.path("")).output().expect("weir can be started")
}

#[track_caller]
fn assert_told(output: &Output, code: i32, told: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in told {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
}

/// A fault in a key does not hide those in files. `weir run` tells them too.
#[test]
fn keys_files_and_machine_in_one_go() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = format!("'{}'", taken.local_addr().expect("an address"));
    let weir = WEIR.prepare(&[
        ("window.sise", "'5s'"),
        ("mqtt.listen", &taken),
        ("http.listen", "'192.0.2.1:8080'"),
        ("http.allow_anonymous", "true"),
        ("mqtt.auth.users", "'absent-users'"),
        ("mqtt.auth.acl", "'absent-acl'"),
        ("http.auth.tokens", "'absent-tokens'"),
        ("http.tls.listen", "'127.0.0.1:0'"),
        ("http.tls.cert", "'absent-cert'"),
        ("http.tls.key", "'absent-key'"),
    ]);
    fs::write(weir.data(), "a file").expect("a file in the place of the directory");
    let keys_and_files = ["window.sise", "absent-users", "absent-acl", "absent-tokens", "http.tls: "];
    let machine =
        ["node.data_dir: ", "is not a directory", "another process listens on", "192.0.2.1 is not an address"];
    assert_told(&run(&weir, &["check"]), CONFIG, &[&keys_and_files[..], &machine].concat());
    assert_told(&run(&weir, &["run"]), CONFIG, &keys_and_files);
}

/// Files alone are wrong: a start tells all of them, and creates nothing.
#[test]
fn a_start_tells_the_faults_of_all_files() {
    let weir = WEIR.prepare(&[("mqtt.auth.users", "'absent-users'"), ("http.auth.tokens", "'absent-tokens'")]);
    assert_told(&run(&weir, &["run"]), CONFIG, &["absent-users", "absent-tokens"]);
    assert!(!weir.data().exists(), "nothing is created under a wrong config");
}

#[test]
fn a_running_weir_is_not_in_the_way_of_its_own_check() {
    let mut weir = WEIR.start(&[]);
    // With the ports that it has got, in the place of 0.
    let (mqtt, http) = (format!("'{}'", weir.mqtt()), format!("'{}'", weir.http()));
    weir.configure(&[("mqtt.listen", &mqtt), ("http.listen", &http)]);
    assert_told(&run(&weir, &["check"]), 0, &["ok"]);
    weir.terminate();
}

#[test]
fn too_little_space_is_a_warning() {
    let weir = WEIR.prepare(&[("journal.min_free_disk", "'1024GiB'")]);
    assert_told(&run(&weir, &["check"]), 0, &["warning: node.data_dir: ", "less than journal.min_free_disk", "ok"]);
}

/// Root can read every file, so root checks as the owner of the data directory or as the user that is named.
#[test]
fn root_checks_as_the_user_of_the_service() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can check as another user");
        let output = run(&WEIR.prepare(&[]), &["check", "--user", "0"]);
        return assert_told(&output, 1, &["only root can check as user root"]);
    }
    let weir = WEIR.prepare(&[("mqtt.auth.users", "'users'")]);
    fs::set_permissions(weir.path(""), fs::Permissions::from_mode(0o755)).expect("others may enter");
    fs::set_permissions(weir.path("config.toml"), fs::Permissions::from_mode(0o644)).expect("others may read");
    fs::write(weir.path("users"), "").expect("a users file");
    fs::set_permissions(weir.path("users"), fs::Permissions::from_mode(0o600)).expect("root's alone");
    assert_told(&run(&weir, &["check"]), 0, &["ok"]);
    let somebody = SOMEBODY.to_string();
    let named = format!("{somebody}:{somebody}");
    let denied = ["checked as user 54321", "users", "Permission denied", "node.data_dir: ", "cannot be created"];
    assert_told(&run(&weir, &["check", "--user", &named]), CONFIG, &denied);
    // The owner of the data directory is the user of the service.
    fs::create_dir(weir.data()).expect("a directory");
    chown(weir.data(), Some(SOMEBODY), Some(SOMEBODY)).expect("another owner");
    assert_told(&run(&weir, &["check"]), CONFIG, &["checked as user 54321", "users", "Permission denied"]);
    assert_told(&run(&weir, &["check", "--user", "0"]), 0, &["ok"]);
    chown(weir.path("users"), Some(SOMEBODY), None).expect("another owner");
    assert_told(&run(&weir, &["check"]), 0, &["checked as user 54321", "ok"]);
    // The config is one of the files that the service reads.
    fs::set_permissions(weir.path("config.toml"), fs::Permissions::from_mode(0o600)).expect("root's alone");
    assert_told(&run(&weir, &["check"]), CONFIG, &["config.toml: cannot be read: Permission denied"]);
    fs::set_permissions(weir.path("config.toml"), fs::Permissions::from_mode(0o644)).expect("others may read");
    // What root's weir has left in the directory.
    fs::create_dir(weir.data().join("journal")).expect("a directory");
    fs::write(weir.data().join("journal/00000000000000000000.log"), "").expect("a segment");
    fs::set_permissions(weir.data().join("journal"), fs::Permissions::from_mode(0o700)).expect("root's alone");
    assert_told(&run(&weir, &["check"]), CONFIG, &["data/journal cannot be read and written"]);
}

/// With --file, `weir passwd` and `weir token` need no configuration.
#[test]
fn users_and_tokens_of_a_named_file_need_no_config() {
    for config in ["wrong.toml", "absent.toml"] {
        let weir = WEIR.prepare(&[]);
        fs::write(weir.path("wrong.toml"), "[windw]\nsize = 5\n").expect("a file");
        let run = |arguments: &[&str]| {
            let mut command = WEIR.command(arguments);
            command.args(["--config", config]).current_dir(weir.path("")).output().expect("weir can be started")
        };
        assert_told(&run(&["passwd", "add", "pump-7", "--generate", "--file", "users"]), 0, &["pump-7 is added"]);
        assert_told(&run(&["passwd", "list", "--file", "users"]), 0, &["pump-7\tdevice"]);
        assert_told(&run(&["passwd", "remove", "pump-7", "--file", "users"]), 0, &["is removed"]);
        assert_told(&run(&["token", "add", "panel", "--role", "read", "--file", "tokens"]), 0, &["panel may read"]);
        assert_told(&run(&["token", "list", "--file", "tokens"]), 0, &["panel"]);
        assert_told(&run(&["token", "remove", "panel", "--file", "tokens"]), 0, &["removed panel"]);
        // Without --file the configuration says which file, so its faults count.
        for command in [["passwd", "list"], ["token", "list"]] {
            assert_told(&run(&command), CONFIG, &[config]);
        }
    }
}

/// Whoever publishes the ports of the container image must have said who may connect.
#[test]
fn the_config_of_the_container_image_lets_nobody_in_by_itself() {
    let weir = WEIR.prepare(&[]);
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/config.toml");
    let run = |command: &str, variables: &[(&str, &str)]| {
        let mut run = WEIR.command(&[command, "--config", config]);
        run.current_dir(weir.path("")).env("WEIR_NODE__DATA_DIR", "data");
        run.envs(variables.iter().copied()).output().expect("weir can be started")
    };
    for command in ["run", "check"] {
        let told = ["mqtt.listen: 0.0.0.0:1883", "mqtt.auth.users", "http.listen: 0.0.0.0:8080", "http.auth.tokens"];
        assert_told(&run(command, &[]), CONFIG, &told);
    }
    // As in docker/compose.yaml.
    let access = [("WEIR_MQTT__AUTH__USERS", "users"), ("WEIR_HTTP__AUTH__TOKENS", "tokens")];
    assert_told(&run("run", &access), CONFIG, &["users", "tokens"]);
    fs::write(weir.path("users"), "").expect("a file");
    fs::write(weir.path("tokens"), "").expect("a file");
    // The ports of the config may be in use on this machine.
    let free = [("WEIR_MQTT__LISTEN", "0.0.0.0:0"), ("WEIR_HTTP__LISTEN", "0.0.0.0:0")];
    assert_told(&run("check", &[&access[..], &free].concat()), 0, &["ok"]);
}

#[test]
fn container_images_are_named_by_full_versions() {
    for file in ["Dockerfile", "compose.yaml"] {
        let path = format!("{}/docker/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).expect("a readable file");
        let named = |line: &str| {
            let image = line.strip_prefix("FROM ").or_else(|| line.trim().strip_prefix("image: "))?;
            image.split_whitespace().next().map(str::to_owned)
        };
        let images: Vec<String> = text.lines().filter_map(named).collect();
        assert!(!images.is_empty(), "{file} names no image");
        for image in images {
            let version = image.split_once(':').map_or("", |(_, tag)| tag).trim_start_matches('v');
            let version = version.split('-').next().unwrap_or_default();
            // Debian's versions have two parts, the others three.
            let parts = if image.starts_with("debian:") { 2 } else { 3 };
            let is_full =
                version.split('.').count() == parts && version.split('.').all(|part| part.parse::<u32>().is_ok());
            assert!(is_full, "{file}: {image}");
        }
    }
}
