//! Clients with user names and passwords against a real `weir` process.
//!
//! `cargo bench --bench logins`. Arguments: `-- [seconds of each latency measurement] [users with passwords]
//! [users with generated secrets]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use weir::access::{Password, StoredPassword};

use weir_test_kit::measure::client::{LoadClient, connect_all, connect_packet};
use weir_test_kit::measure::round_trip::RoundTrips;
use weir_test_kit::measure::times::{Times, per_second};
use weir_test_kit::measure::{BenchArguments, megabytes, run};
use weir_test_kit::process::{Program, Weir};

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

/// Most logins at a time. Below the number of passwords that may wait, so that weir refuses none.
const TOGETHER: usize = 256;
const GUESSERS: u64 = 64;
/// A guesser reconnects when it has no answer after this time: weir delays each refusal longer.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time between two publishes of the client whose latency is measured.
const PAUSE: Duration = Duration::from_millis(2);

const PASSWORD: &str = "correct horse battery staple";

const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = BenchArguments::read() else { return };
    let time = Duration::from_secs(arguments.number(10));
    let (passwords, secrets) = (arguments.number(500), arguments.number(10_000));
    run(LIMIT + time * 2, async {
        with_passwords(passwords as usize, time).await;
        with_secrets(secrets as usize).await;
    });
}

/// A weir with these users: `user-0`, `user-1` and so on.
fn start_with(stored: &[StoredPassword]) -> Weir {
    let lines =
        stored.iter().enumerate().map(|(index, stored)| format!("{}:device:{}\n", user(index), stored.to_text()));
    let lines: String = lines.collect();
    let mut weir = WEIR.prepare_on_disk(&[]);
    let path = weir.path("users");
    weir.configure(&[("mqtt.auth.users", &format!("'{}'", path.display()))]);
    fs::write(&path, lines).expect("a users file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a users file for weir alone");
    weir.spawn();
    weir.wait_until("weir is ready", Weir::is_ready);
    weir
}

fn user(index: usize) -> String {
    format!("user-{index}")
}

/// All users log in; returns their connections.
async fn log_in<'a>(what: &str, weir: &Weir, passwords: impl Iterator<Item = &'a str>) -> Vec<LoadClient> {
    let packet = |(index, password)| connect_packet(&format!("client-{index}"), Some((&user(index), password)));
    let packets: Vec<_> = passwords.enumerate().map(packet).collect();
    let (count, started) = (packets.len() as u64, Instant::now());
    let clients = connect_all(weir.mqtt(), packets, TOGETHER).await;
    println!("{what}: {count} logins, {}", per_second(count, started.elapsed()));
    clients
}

async fn with_passwords(users: usize, time: Duration) {
    // All users have the same hash; weir checks the password of each user on its own.
    let stored = StoredPassword::hash(&Password::new(PASSWORD.as_bytes())).expect("a hash");
    let weir = start_with(&vec![stored; users]);
    let passwords = || std::iter::repeat_n(PASSWORD, users);
    drop(log_in("passwords (Argon2id), first time", &weir, passwords()).await);
    drop(log_in("the same passwords again", &weir, passwords()).await);

    let quiet = publish_for(weir.mqtt(), time).await;
    println!("a client that is logged in, one publish every 2 ms: PUBLISH to PUBACK {quiet}");
    let checked = || weir.metric_sum("weir_mqtt_passwords_checked_total{how=\"argon2\"}");
    let before = checked();
    let mut guessers = JoinSet::new();
    for guesser in 0..GUESSERS {
        guessers.spawn(guess(weir.mqtt(), guesser, users));
    }
    let disturbed = publish_for(weir.mqtt(), time).await;
    let guesses = checked() - before;
    guessers.shutdown().await;
    println!(
        "the same beside {GUESSERS} clients that guess passwords ({:.0} hashes per second): {disturbed}",
        guesses / time.as_secs_f64()
    );
    println!("memory at most: {}", megabytes(weir.memory().peak));
}

/// Logs in with wrong passwords, a different one each time, without pause.
async fn guess(address: SocketAddr, guesser: u64, users: usize) {
    for number in 0.. {
        let (client_id, password) = (format!("guesser-{guesser}"), format!("guess-{guesser}-{number}"));
        let packet = connect_packet(&client_id, Some((&user(number % users), &password)));
        if let Ok(Ok((_, code))) = tokio::time::timeout(PATIENCE, LoadClient::open(address, &packet)).await {
            assert_ne!(code, 0, "a wrong password was taken");
        }
    }
}

/// Publishes one message after the other with pauses, in its own thread.
async fn publish_for(address: SocketAddr, time: Duration) -> Times {
    let publish = move || {
        let device = user(0);
        let packet = connect_packet("publisher", Some((&device, PASSWORD)));
        let mut client = RoundTrips::connect(address, &packet, &device).expect("the CONNECT is accepted");
        let (end, mut times) = (Instant::now() + time, Vec::new());
        while Instant::now() < end {
            times.push(client.publish().expect("a PUBACK"));
            std::thread::sleep(PAUSE);
        }
        Times::of(times)
    };
    tokio::task::spawn_blocking(publish).await.expect("the client does not panic")
}

async fn with_secrets(users: usize) {
    let secrets: Vec<Password> = (0..users).map(|_| Password::generate().expect("random bytes")).collect();
    let stored: Vec<_> = secrets.iter().map(StoredPassword::of_generated).collect();
    let weir = start_with(&stored);
    let texts = secrets.iter().map(|secret| std::str::from_utf8(secret.as_bytes()).expect("a secret is ASCII"));
    let clients = log_in("generated secrets, first time", &weir, texts).await;
    println!("memory with {} logged-in clients: {}", clients.len(), megabytes(weir.memory().now));
}
