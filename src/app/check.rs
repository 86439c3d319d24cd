//! `weir check` beyond the configuration itself: the files that it names.

use weir::config::CheckReport;
use weir::config::Config;

use super::{access, http_access, tls};

/// Looks at everything that a start would load.
pub fn check(config: &Config) -> CheckReport {
    let mut all = CheckReport::default();
    for CheckReport { faults, warnings } in [tls::check(config), access::check(config), http_access::check(config)] {
        all.faults.extend(faults);
        all.warnings.extend(warnings);
    }
    all
}
