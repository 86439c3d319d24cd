//! The file `addresses.json` of the data directory: where the running weir can be reached. Scripts, tests and `weir
//! savepoint create` read it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use weir::disk::{RealDisk, replace_file};

const FILE_NAME: &str = "addresses.json";

/// The addresses that the listeners of one process are bound to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BoundAddresses {
    /// The process that listens.
    pub pid: u32,
    pub mqtt: SocketAddr,
    pub mqtt_tls: Option<SocketAddr>,
    pub http: SocketAddr,
    pub http_tls: Option<SocketAddr>,
}

impl BoundAddresses {
    /// Whether the process that wrote the file still runs.
    pub fn is_running(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// Whether one of the listeners has this address.
    pub fn holds(&self, address: SocketAddr) -> bool {
        [Some(self.mqtt), self.mqtt_tls, Some(self.http), self.http_tls].contains(&Some(address))
    }

    /// Replaces the file of `data_dir`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = data_dir.join(FILE_NAME);
        let text = serde_json::to_string(self)?;
        replace_file(&RealDisk, &path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the file of `data_dir`.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} does not hold addresses", path.display()))
    }
}
