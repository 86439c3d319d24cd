//! The documentation does what it says: its commands print what it shows, its configurations pass the check, its links lead
//! somewhere.
//!
//! Every fenced block of [`PAGES`] names its language:
//!
//! | language | meaning |
//! |---|---|
//! | `sh` | commands, all lines of the block |
//! | `output` | what the `sh` block before it prints |
//! | `console` | commands behind `$ `, each followed by what it prints |
//! | `toml` | a configuration that `weir check` accepts; one with `[roles.…]` is an ACL file, which `access::rules` checks |
//! | `json`, `yaml`, `js`, `text` | not run here |
//!
//! The commands of one page run in one shell, in order, in an empty directory ([`shell`]). A command whose output is shown must
//! print it; one without must succeed. In what is shown, a line `...` stands for any number of lines, `…` for any text of one
//! line, and with `varies="numbers"` behind the language each number may be another one ([`compare`]).
//! `ignore-reason="needs root"` behind the language says why a block is not run.

mod compare;
mod page;
mod security;
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::WEIR;
use page::{Block, Page, ShownOutput};
use shell::Shell;
use weir_test_kit::certificates::CertificateAuthority;

/// The pages with commands, beside those in docs/.
const PAGES: &[&str] = &["README.md", "CONTRIBUTING.md", "docker/README.md", "systemd/README.md"];
/// Pages of which only the links are followed.
const LINKED: &[&str] = &["ARCHITECTURE.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = PAGES.iter().map(PathBuf::from).collect();
    for entry in fs::read_dir(root().join("docs")).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path.strip_prefix(root()).expect("it is below the root").to_owned());
        }
    }
    paths.sort();
    paths.iter().map(|path| Page::read(root(), path)).collect()
}

#[track_caller]
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n\n"));
}

#[test]
fn every_block_says_what_it_is() {
    let offences: Vec<String> = pages().iter().flat_map(Page::faults).collect();
    assert_none("blocks whose first line is not understood", &offences);
}

#[test]
fn commands_print_what_is_shown() {
    let pages: Vec<Page> = pages().into_iter().filter(|page| !page.commands().is_empty()).collect();
    assert!(pages.len() > 2, "the commands were not found");
    let offences = std::thread::scope(|scope| {
        let runs: Vec<_> = pages.iter().map(|page| scope.spawn(|| run(page))).collect();
        runs.into_iter().flat_map(|run| run.join().expect("a page can be run")).collect::<Vec<String>>()
    });
    assert_none("commands that do not do what is written", &offences);
}

/// Runs the commands of a page up to the first that does not do what is written.
fn run(page: &Page) -> Option<String> {
    let mut shell = Shell::start();
    page.commands().iter().find_map(|command| {
        let fault = fault_of(command, &mut shell)?;
        let place = format!("{}:{}", page.path.display(), command.line);
        Some(format!("{place}: {}\n{fault}\nweir.log of the page:\n{}", command.text, shell.file("weir.log")))
    })
}

fn fault_of(command: &ShownOutput, shell: &mut Shell) -> Option<String> {
    let printed = match shell.run(&command.text) {
        Ok(printed) => printed,
        Err(stuck) => return Some(stuck),
    };
    match &command.shown {
        Some(shown) => compare::difference(&shell.translate(shown), &printed.text, command.numbers_vary),
        None if printed.succeeded => None,
        None => Some(format!("it failed and printed\n{}", printed.text)),
    }
}

/// A copy of /etc/weir as the documentation describes it.
struct Etc {
    directory: TempDir,
}

impl Etc {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let etc = Self { directory };
        let (server, devices) = (CertificateAuthority::create(), CertificateAuthority::named("devices"));
        server.issue("server", "box.example", 2099);
        devices.write("crl.pem", &devices.revocation_list(&[], 1, 2099));
        fs::create_dir(etc.path("tls")).expect("a directory");
        for (from, to) in [
            (server.path("server.pem"), "tls/fullchain.pem"),
            (server.path("server.key"), "tls/privkey.pem"),
            (devices.path("ca.pem"), "tls/devices-ca.pem"),
            (devices.path("crl.pem"), "tls/devices-crl.pem"),
        ] {
            etc.write(to, &fs::read_to_string(from).expect("a readable file"));
        }
        etc.write("users", "");
        etc.write("tokens", "");
        etc.weir(&["passwd", "add", "pump-7", "--generate", "--file"], "users").expect("a user");
        etc.weir(&["token", "add", "panel", "--role", "read", "--file"], "tokens").expect("a token");
        etc
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    /// Runs weir with the path of a file as its last argument.
    fn weir(&self, arguments: &[&str], file: &str) -> Result<(), String> {
        let mut command = WEIR.command(arguments);
        command.arg(self.path(file)).current_dir(self.directory.path());
        if !fs::read_to_string(self.path(file)).is_ok_and(|text| text.contains("[mqtt]\nlisten")) {
            command.env("WEIR_MQTT__LISTEN", "127.0.0.1:0");
        }
        command.env("WEIR_HTTP__LISTEN", "127.0.0.1:0");
        let output = command.output().expect("weir can be started");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(told) }
    }

    fn check(&self, config: &str) -> Result<(), String> {
        let config = config.replace("/etc/weir/", &format!("{}/", self.directory.path().display()));
        // The address of an example is not one of this machine, and its ports may be in use.
        let mut config = config.replace("192.168.1.10:1883", "0.0.0.0:0");
        for port in ["8883", "8443"] {
            config = config.replace(&format!(":{port}\""), ":0\"");
        }
        self.write("weir.toml", &config);
        self.weir(&["check", "--config"], "weir.toml")
    }
}

#[test]
fn configurations_pass_the_check() {
    let etc = Etc::new();
    let mut offences = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let is_config = |block: &&Block| block.language == "toml" && !block.text.contains("[roles.");
        for block in page.blocks.iter().filter(is_config) {
            checked += 1;
            if let Err(told) = etc.check(&block.text) {
                offences.push(format!("{}:{}: {told}", page.path.display(), block.line));
            }
        }
    }
    assert!(checked > 2, "the configurations were not found");
    assert_none("configurations that `weir check` refuses", &offences);
}

#[test]
fn links_lead_somewhere() {
    let mut pages = pages();
    pages.extend(LINKED.iter().map(|path| Page::read(root(), Path::new(path))));
    let anchors = |path: &Path| -> Option<BTreeSet<String>> {
        if path.extension().is_none_or(|extension| extension != "md") {
            return path.exists().then(BTreeSet::new);
        }
        let text = fs::read_to_string(path).ok()?;
        Some(page::anchors(&text))
    };
    let mut offences = Vec::new();
    for page in &pages {
        for (line, target) in page.links() {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let own = root().join(&page.path);
            let path = if file.is_empty() { own } else { own.parent().expect("a directory").join(file) };
            match anchors(&path) {
                None => offences.push(format!("{}:{line}: there is no {target}", page.path.display())),
                Some(known) if !anchor.is_empty() && !known.contains(anchor) => {
                    offences.push(format!("{}:{line}: there is no section {target}", page.path.display()));
                }
                Some(_) => {}
            }
        }
    }
    assert_none("links that lead nowhere", &offences);
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/README.md")).expect("a readable page");
    let missing: Vec<String> = pages()
        .iter()
        .filter(|page| page.path.starts_with("docs") && !page.path.ends_with("README.md"))
        .filter_map(|page| page.path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .filter(|name| !index.contains(&format!("({name}")))
        .collect();
    assert_none("pages that docs/README.md does not name", &missing);
}
