//! The files that the configuration names. They are loaded before anything is opened or bound, and all their faults are
//! reported at once.

use std::sync::Arc;

use weir::access::Access;
use weir::access::http_access::HttpAccess;
use weir::clock::Clock;
use weir::config::Config;

use super::tls::Certificates;
use super::{access, http_access};
use crate::commands::check::file_faults;
use crate::exit::WrongFiles;

/// Certificates, users, access rules and tokens.
pub struct ConfiguredFiles {
    pub certificates: Certificates,
    pub http_access: Arc<HttpAccess>,
    pub access: Arc<Access>,
}

impl ConfiguredFiles {
    /// Loads all files.
    ///
    /// # Errors
    /// The faults of all files.
    pub fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, WrongFiles> {
        let certificates = Certificates::load(config, clock).map_err(|error| error.to_string());
        let http_access = http_access::load(config, clock).map_err(|error| error.to_string());
        let access = access::load(config).map_err(|errors| errors.to_string());
        match (certificates, http_access, access) {
            (Ok(certificates), Ok(http_access), Ok(access)) => Ok(Self { certificates, http_access, access }),
            (certificates, http_access, access) => {
                let faults = file_faults(config);
                // Files that were mended in between: what the load found.
                let found = [certificates.err(), http_access.err(), access.err()];
                Err(WrongFiles(if faults.is_empty() { found.into_iter().flatten().collect() } else { faults }))
            }
        }
    }
}
