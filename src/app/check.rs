//! `weir check` beyond the configuration itself: the files that it names.

use weir::config::Config;
use weir::tls::Findings;

use super::{http_access, tls};

/// Looks at everything that a start would load.
pub fn check(config: &Config) -> Findings {
    let mut all = Findings::default();
    for findings in [tls::check(config), http_access::check(config)] {
        all.faults.extend(findings.faults);
        all.warnings.extend(findings.warnings);
    }
    all
}
