//! `weir check` beyond the configuration itself: the files that it names.

use weir::config::Config;
use weir::tls::Findings;

use crate::app::{access, http_access, tls};

/// Looks at everything that a start would load.
pub fn check(config: &Config) -> Findings {
    let mut all = Findings::default();
    for Findings { faults, warnings } in [tls::check(config), access::check(config), http_access::check(config)] {
        all.faults.extend(faults);
        all.warnings.extend(warnings);
    }
    all
}
