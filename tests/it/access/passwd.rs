//! `weir passwd`, the users file, and listeners that must not be open by accident.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Output, Stdio};

use crate::WEIR;
use crate::access::login::{add_user, with_users};
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::program;

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn passwd(weir: &Weir, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut all = vec!["passwd"];
    all.extend_from_slice(arguments);
    let mut child = weir
        .command(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // A command that reads no input may have ended already.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), said(&output))
}

fn mode(weir: &Weir) -> u32 {
    fs::metadata(weir.path("users")).expect("a users file").permissions().mode() & 0o777
}

#[test]
fn the_whole_life_of_users() {
    let weir = with_users(&[], &[]);
    add_user(&weir, "ada", "one", &["dashboard", "bridge"]);
    assert_eq!(mode(&weir), 0o600);
    add_user(&weir, "pump-7", "two", &[]);
    let list = || passwd(&weir, &["list"], "").1;
    assert_eq!(list(), "ada\tdashboard,bridge\npump-7\tdevice\n");
    let text = fs::read_to_string(weir.path("users")).expect("a users file");
    fs::write(weir.path("users"), format!("# people\n{text}")).expect("it can be written");
    fs::set_permissions(weir.path("users"), fs::Permissions::from_mode(0o640)).expect("permissions");
    add_user(&weir, "ada", "three", &[]);
    assert_eq!(list(), "ada\tdashboard,bridge\npump-7\tdevice\n", "a new password leaves the roles");
    add_user(&weir, "ada", "four", &["bridge"]);
    assert_eq!(list(), "ada\tbridge\npump-7\tdevice\n");
    let text = fs::read_to_string(weir.path("users")).expect("a users file");
    let line = text.lines().nth(1).expect("a line");
    assert!(text.starts_with("# people\n") && line.starts_with("ada:bridge:$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    assert_eq!(mode(&weir), 0o640, "what the group may do stays");
    assert_eq!(passwd(&weir, &["remove", "pump-7"], "").0, Some(0));
    assert_eq!(list(), "ada\tbridge\n");
    let (code, text) = passwd(&weir, &["remove", "pump-7"], "");
    assert!(code == Some(1) && text.contains("there is no user \"pump-7\""), "{text}");
    assert!(!weir.path("users.tmp").exists());
}

#[test]
fn a_link_stays_one_and_another_file_can_be_named() {
    let weir = with_users(&[], &[]);
    fs::write(weir.path("real"), "").expect("a file");
    symlink("real", weir.path("users")).expect("a link");
    add_user(&weir, "ada", "one", &[]);
    assert!(fs::symlink_metadata(weir.path("users")).expect("a link").is_symlink());
    assert!(fs::read_to_string(weir.path("real")).expect("a file").starts_with("ada::$argon2id$"));
    let other = weir.path("other").display().to_string();
    assert_eq!(passwd(&weir, &["add", "bob", "--generate", "--file", &other], "").0, Some(0));
    assert_eq!(passwd(&weir, &["list", "--file", &other], "").1, "bob\tdevice\n");
    let nothing = WEIR.prepare(&[]);
    let (code, text) = passwd(&nothing, &["list"], "");
    assert!(code == Some(1) && text.contains("set mqtt.auth.users in the config, or use --file"), "{text}");
}

#[test]
fn what_cannot_be_a_user_is_refused() {
    let weir = with_users(&[], &[]);
    for name in ["a/b", "a:b", "+", "#", "", " a", "a\nb", &"x".repeat(129)] {
        let (code, text) = passwd(&weir, &["add", name, "--stdin"], "x\n");
        assert!(code == Some(1) && text.contains("cannot be a user name"), "{name:?}: {code:?} {text}");
    }
    let (code, text) = passwd(&weir, &["add", "a", "--stdin", "--role", "a b"], "x\n");
    assert!(code == Some(1) && text.contains("\"a b\" cannot be a role"), "{text}");
    // A line like this would make weir refuse the whole file.
    let (code, text) = passwd(&weir, &["add", "a", "--stdin", "--role", "painter"], "x\n");
    assert!(
        code == Some(1) && text.contains("there is no role \"painter\"; expected one of anonymous, bridge"),
        "{text}"
    );
    let (code, text) = passwd(&weir, &["add", "a", "--stdin"], "\n");
    assert!(code == Some(1) && text.contains("the password is empty"), "{text}");
    assert_eq!(passwd(&weir, &["add", "a", "secret"], "").0, Some(64), "never on the command line");
    assert!(!weir.path("users").exists());
}

/// Several commands at once lose no user.
#[test]
fn concurrent_changes_do_not_lose_each_other() {
    let weir = with_users(&[], &[]);
    let names: Vec<String> = (0..8).map(|n| format!("user-{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let weir = &weir;
            scope.spawn(move || assert_eq!(passwd(weir, &["add", name, "--generate"], "").0, Some(0)));
        }
    });
    let listed = passwd(&weir, &["list"], "").1;
    assert!(names.iter().all(|name| listed.contains(&format!("{name}\tdevice\n"))), "{listed}");
}

/// In a terminal the password is asked for twice and not shown; the terminal is restored, also after Ctrl-C.
#[test]
fn the_password_is_asked_at_the_terminal() {
    let mut weir = with_users(&[], &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/passwd_terminal.py");
    let ask = |keys: &[&str]| {
        let config = weir.path("config.toml").display().to_string();
        let output = program("python3")
            .arg(script)
            .args([WEIR.path, &config, "pump"])
            .args(keys)
            .current_dir(weir.path(""))
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = ask(&["secrex\\x7ft\\r", "secret\\r"]);
    assert!(shown.contains("status 0") && shown.contains("user pump is added"), "{shown}");
    assert!(shown.contains("Password of pump: ") && shown.contains("Again: ") && !shown.contains("secre"), "{shown}");
    let shown = ask(&["one\\r", "two\\r"]);
    assert!(shown.contains("status 1") && shown.contains("the two passwords differ"), "{shown}");
    let shown = ask(&["on\\x03"]);
    assert!(shown.contains("status 1") && shown.contains("interrupted"), "{shown}");
    assert!(shown.contains("echo True"), "the terminal shows what is typed again: {shown}");
    weir.restart();
    let connect = ConnectPacket::new(MqttVersion::V4, "c").user("pump").password("secret");
    assert_eq!(connect.code(weir.mqtt()), 0, "the first answer was kept and the others changed nothing");
}

#[test]
fn without_a_terminal_it_says_so() {
    let weir = with_users(&[], &[]);
    let mut command = program("setsid");
    command.arg("--wait").arg(WEIR.path).args(["passwd", "add", "a", "--config"]);
    let output = command.arg(weir.path("config.toml")).stdin(Stdio::null()).output().expect("it runs");
    assert!(said(&output).contains("use --stdin or --generate"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1), "no disk has failed");
}

#[track_caller]
fn check_start(weir: &Weir, faults: &[&str]) {
    for command in ["check", "run"] {
        let output = weir.command(&[command]).stdin(Stdio::null()).output().expect("it runs");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(78), "weir {command}: {text}");
        for fault in faults {
            assert!(text.contains(fault), "weir {command}: {text}");
        }
        assert!(!text.contains("c29tZXNhbHQ") && !text.contains("hunter2"), "{text}");
    }
    assert!(!weir.data().join("addresses.json").exists(), "no listener was opened");
}

#[test]
fn faults_of_the_users_file_are_told_all_at_once() {
    let weir = with_users(&[], &[]);
    check_start(&weir, &["the users file cannot be read"]);
    fs::write(weir.path("users"), format!("a::{HASH}\nb\nc::hunter2\na::{HASH}\n")).expect("it can be written");
    check_start(
        &weir,
        &[
            "users:2: this is not a user; expected NAME:ROLES:HASH",
            "users:3: the password of user \"c\": it is no hash that weir knows",
            "users:4: user \"a\" is already in line 1",
        ],
    );
    let (code, text) = passwd(&weir, &["add", "d", "--generate"], "");
    assert!(
        code == Some(78) && text.contains("users:2:"),
        "nothing is written into a file that is not understood: {text}"
    );
    fs::write(weir.path("users"), format!("a::{HASH}\n")).expect("it can be written");
    fs::set_permissions(weir.path("users"), fs::Permissions::from_mode(0o644)).expect("permissions");
    let output = weir.command(&["check"]).output().expect("it runs");
    let text = said(&output);
    assert!(output.status.success() && text.contains("warning: ") && text.contains("may read this file"), "{text}");
}

#[test]
fn a_listener_that_others_reach_is_never_open_by_accident() {
    let open = [("mqtt.listen", "'0.0.0.0:0'"), ("http.listen", "'[::]:0'")];
    let weir = WEIR.prepare(&[open[0], open[1], ("http.allow_anonymous", "true")]);
    check_start(&weir, &["mqtt.listen: 0.0.0.0:0 can be reached", "http.listen: [::]:0 can be reached"]);
    let (mqtt, http, open_http) = (open[0], open[1], ("http.allow_anonymous", "true"));
    let said_so = WEIR.start(&[mqtt, http, open_http, ("mqtt.allow_anonymous", "true")]);
    let output = said_so.output();
    assert!(output.contains("WARN") && output.contains("whoever reaches mqtt.listen, http.listen (/mqtt)"), "{output}");
    assert_eq!(ConnectPacket::new(MqttVersion::V4, "c").code(([127, 0, 0, 1], said_so.mqtt().port()).into()), 0);
    let mut users = with_users(&[("ada", "a")], &[mqtt, http, open_http]);
    users.restart();
    let address = ([127, 0, 0, 1], users.mqtt().port()).into();
    assert_eq!(ConnectPacket::new(MqttVersion::V4, "c").code(address), 5);
    assert_eq!(ConnectPacket::new(MqttVersion::V4, "c").user("ada").password("a").code(address), 0);
    assert!(!users.output().contains("may connect to MQTT without"));
    let simulated = WEIR.prepare(&[("mqtt.auth.users", "'users'"), ("simulator.enabled", "true")]);
    check_start(&simulated, &["simulator.enabled: the simulator connects without credentials"]);
}

/// The help names no option that would take a password.
#[test]
fn help_is_there() {
    let output = WEIR.command(&["passwd", "add", "--help"]).output().expect("it runs");
    let text = said(&output);
    assert!(output.status.success() && text.contains("--stdin") && text.contains("--generate"), "{text}");
}
