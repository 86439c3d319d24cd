//! What a configuration needs from the machine: a data directory that the user of the check may write, disk space, and
//! addresses to listen on.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use tokio::net::TcpSocket;

use weir::config::{CheckReport, Config, ReadConfig};
use weir::disk::{Disk as _, RealDisk};

use crate::app::addresses::BoundAddresses;
use crate::app::recorded_settings;
use crate::app::storage::DATA_DIRECTORIES;

/// Files of weir in the data directory, beside the directories.
const DATA_FILES: [&str; 3] = ["lock", "addresses.json", recorded_settings::FILE_NAME];

/// Checks data directory and listeners, where the configuration says which.
pub fn check(read: &ReadConfig, report: &mut CheckReport) {
    let Some(config) = read.config() else { return };
    let data_dir = &config.node.data_dir;
    let knows_data_dir = read.is_right("node.data_dir");
    if knows_data_dir {
        if let Some(fault) = directory_fault(data_dir) {
            report.faults.push(format!("node.data_dir: {fault}"));
        }
        report.warnings.extend(low_space(config));
    }
    let running = BoundAddresses::read(data_dir).ok().filter(|_| knows_data_dir).filter(BoundAddresses::is_running);
    for (key, address) in config.listeners().filter(|(key, _)| read.is_right(key)) {
        // A weir that runs with this data directory holds its addresses.
        if running.is_some_and(|running| running.holds(address)) {
            continue;
        }
        if let Some(fault) = address_fault(address) {
            report.faults.push(format!("{key}: {fault}"));
        }
    }
}

/// Why weir could not work with the data directory; `None`: it can.
fn directory_fault(directory: &Path) -> Option<String> {
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Some(format!("{} is not a directory", directory.display())),
        Ok(_) => entry_fault(directory, true).or_else(|| data_fault(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let existing =
                directory.ancestors().skip(1).find(|parent| parent.as_os_str().is_empty() || parent.exists())?;
            let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
            let fault = entry_fault(existing, true)?;
            Some(format!("{} does not exist and cannot be created: {fault}", directory.display()))
        }
        Err(error) => Some(format!("cannot look at {}: {error}", directory.display())),
    }
}

/// The first entry of weir in the data directory that the user cannot read and write. A weir that was started as another user
/// leaves such entries.
fn data_fault(data_dir: &Path) -> Option<String> {
    let files = DATA_FILES.iter().find_map(|name| entry_fault(&data_dir.join(name), false));
    files.or_else(|| DATA_DIRECTORIES.iter().find_map(|name| content_fault(&data_dir.join(name))))
}

fn content_fault(directory: &Path) -> Option<String> {
    if !directory.is_dir() {
        return None;
    }
    if let Some(fault) = entry_fault(directory, true) {
        return Some(fault);
    }
    match RealDisk.list(directory) {
        Ok(entries) => entries.iter().find_map(|entry| entry_fault(&directory.join(&entry.name), entry.is_dir)),
        Err(error) => Some(error.to_string()),
    }
}

fn entry_fault(path: &Path, is_dir: bool) -> Option<String> {
    let wanted = Access::READ_OK | Access::WRITE_OK | if is_dir { Access::EXEC_OK } else { Access::EXISTS };
    match accessat(CWD, path, wanted, AtFlags::EACCESS) {
        // The entry was removed after the directory was read.
        Ok(()) | Err(rustix::io::Errno::NOENT) => None,
        Err(error) => {
            let error = io::Error::from(error);
            Some(format!("{} cannot be read and written by the user that was checked: {error}", path.display()))
        }
    }
}

/// The warning about a file system with less free space than weir wants to keep free.
fn low_space(config: &Config) -> Option<String> {
    let data_dir = &config.node.data_dir;
    let existing = data_dir.ancestors().find(|parent| parent.exists()).unwrap_or(Path::new("."));
    let (available, wanted) = (RealDisk.available_bytes(existing).ok()?, config.journal.min_free_disk_bytes);
    (available < wanted).then(|| {
        format!(
            "node.data_dir: {available} bytes are free on the file system of {}, less than journal.min_free_disk = {wanted} \
             bytes: weir would read nothing from devices and would not be ready",
            data_dir.display()
        )
    })
}

/// Why weir could not listen on the address; `None`: it can. The socket is bound and does not listen.
fn address_fault(address: SocketAddr) -> Option<String> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    let error = bind().err()?;
    Some(match error.kind() {
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this machine", address.ip()),
        io::ErrorKind::AddrInUse => format!("another process listens on {address}"),
        // The service may have a capability that the user of this check does not have.
        io::ErrorKind::PermissionDenied if address.port() < 1024 => return None,
        _ => format!("cannot listen on {address}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_must_be_free_and_of_this_machine() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let taken = taken.local_addr().map(|address| (address, taken)).expect("an address");
        let in_use = address_fault(taken.0).expect("it is in use");
        assert!(in_use.contains("another process listens"), "{in_use}");
        let foreign = address_fault("192.0.2.1:1883".parse().expect("an address")).expect("not of this machine");
        assert_eq!(foreign, "192.0.2.1 is not an address of this machine");
        assert_eq!(address_fault("127.0.0.1:0".parse().expect("an address")), None);
    }

    #[test]
    fn a_data_directory_is_a_directory_or_can_be_created() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(directory_fault(directory.path()), None);
        assert_eq!(directory_fault(&directory.path().join("a/b")), None);
        assert_eq!(directory_fault(Path::new("relative/data")), None);
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(directory_fault(&file).is_some_and(|fault| fault.ends_with("is not a directory")));
        assert!(directory_fault(Path::new("/proc/self/data")).is_some_and(|fault| fault.contains("cannot be created")));
    }
}
