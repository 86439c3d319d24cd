//! The unit and the installation in a booted systemd (tests/package). Needs root, overlayfs and systemd-nspawn.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::WEIR;
use crate::daemon::text;

fn package(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package").join(file)
}

fn boot(command: &str) -> Output {
    Command::new(package("boot.sh")).arg(WEIR.path).arg(command).output().expect("the script can be started")
}

/// Why no systemd can be booted on this machine; `None`: it can.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_missing = |name: &&str| !std::env::split_paths(&paths).any(|directory| directory.join(*name).is_file());
    if let Some(missing) = ["systemd-nspawn", "unshare", "mount"].into_iter().find(is_missing) {
        return Some(format!("{missing} is not installed (Debian: systemd-container, util-linux)"));
    }
    let output = boot("true");
    (!output.status.success()).then(|| format!("this machine cannot boot a container: {}", text(&output)))
}

#[test]
fn the_installed_service_in_a_booted_systemd() {
    if let Some(obstacle) = obstacle() {
        return println!("SKIPPED: the unit was not tested in a booted systemd: {obstacle}");
    }
    let output = boot("bash /src/tests/package/service.sh /usr/local/lib/weir-under-test");
    let said = text(&output);
    assert!(output.status.success() && said.contains("all steps passed"), "{}\n{said}", output.status);
}
