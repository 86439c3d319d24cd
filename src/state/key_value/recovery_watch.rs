//! Ends sled's recovery before it loses something that it cannot read.
//!
//! sled 0.34.7 takes a part of its log that it cannot read for torn: it goes on without it, and overwrites it. A call that fails
//! for another reason, such as a want of file descriptors or a cable that was loose for a moment, would destroy a sound store.
//! sled says of each such case, in a record of the crate `log`, before it overwrites anything. The records are observed here,
//! and at such a record the recovery is ended by unwinding its thread.
//!
//! `faults::starts` in `tests/it` lets every single call of a start fail: it shows that no case is missing, also after an
//! update of sled.

use std::fmt::{self, Write as _};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use log::Record;

use crate::state::StateError;
use crate::telemetry::log_records::observe;

/// Begin of the record that states how many segments the log has.
const LENGTH: &str = "file len: ";
/// Begin of the record of a segment header that was read, in any thread.
const HEADER: &str = "SA scanned header at lid ";
/// Begin of the record after all headers were read.
const HEADERS_DONE: &str = "ordering before clearing tears";
/// Begins of the records of something that was not read, with the reason.
const UNREAD: [&str; 3] =
    ["unable to load new segment: ", "failed to read log message at lid ", "failed to read blob: "];

/// Segments of the log that is being recovered, and headers of them that were read. One recovery is observed at a time.
static SEGMENTS: AtomicU64 = AtomicU64::new(0);
static HEADERS: AtomicU64 = AtomicU64::new(0);

/// Payload of the unwinding that ends a recovery.
struct UnreadablePart(String);

/// Opens a sled store.
///
/// # Errors
/// sled refused it, or could not read a part of it. In the latter case the error is [`StateError::Io`], and nothing of the
/// store was overwritten.
pub(super) fn open(config: &sled::Config, directory: &Path) -> Result<sled::Db, StateError> {
    // Nothing of an unwound recovery is used.
    let opened = catch_unwind(AssertUnwindSafe(|| observe(look, || config.open())));
    let directory = directory.to_owned();
    match opened {
        Ok(opened) => opened.map_err(|source| StateError::Sled { directory, source }),
        Err(panic) => match panic.downcast::<UnreadablePart>() {
            Ok(part) => Err(StateError::Io { directory, source: io::Error::other(part.0) }),
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// Looks at one record of the process.
fn look(record: &Record<'_>) {
    if !record.target().starts_with("sled::pagecache") {
        return;
    }
    let Some(text) = wanted_text(record) else { return };
    if text.starts_with(LENGTH) {
        let segments = text.rsplit(' ').next().and_then(|number| number.parse().ok());
        SEGMENTS.store(segments.unwrap_or(0), Ordering::SeqCst);
        HEADERS.store(0, Ordering::SeqCst);
    } else if text.starts_with(HEADER) {
        HEADERS.fetch_add(1, Ordering::SeqCst);
    } else if text.starts_with(HEADERS_DONE) {
        let (segments, headers) = (SEGMENTS.load(Ordering::SeqCst), HEADERS.load(Ordering::SeqCst));
        if headers < segments {
            end(format!("{} of {segments} segments of its log cannot be read", segments - headers));
        }
    } else if text.contains("os error ") || text.contains("Os {") {
        // A part with wrong content, which a power cut leaves, has no error of the operating system.
        end(text);
    }
}

/// Ends the recovery: unwinds the thread that opens the store. No panic is reported.
fn end(what: String) {
    resume_unwind(Box::new(UnreadablePart(what)));
}

/// The text of a record that is looked at; `None` for any other. There are several records for each message of the log, so
/// formatting ends at the first piece of a record that is not wanted.
fn wanted_text(record: &Record<'_>) -> Option<String> {
    struct WantedText(String);
    impl fmt::Write for WantedText {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            let is_wanted = || {
                let others = [LENGTH, HEADER, HEADERS_DONE];
                UNREAD.iter().chain(&others).any(|begin| piece.starts_with(begin))
            };
            if self.0.is_empty() && !is_wanted() {
                return Err(fmt::Error);
            }
            self.0.push_str(piece);
            Ok(())
        }
    }
    let mut text = WantedText(String::new());
    text.write_fmt(*record.args()).ok()?;
    Some(text.0)
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn ends_at(target: &str, text: &str) -> bool {
        let looked =
            || look(&Record::builder().target(target).level(Level::Debug).args(format_args!("{text}")).build());
        catch_unwind(looked).is_err()
    }

    #[test]
    fn an_error_of_the_operating_system_ends_a_recovery() {
        const ITERATOR: &str = "sled::pagecache::iterator";
        let error = io::Error::from_raw_os_error(5);
        assert!(ends_at(ITERATOR, &format!("unable to load new segment: Io({error:?})")));
        assert!(ends_at(
            ITERATOR,
            &format!("failed to read log message at lid 7 with expected lsn 8: IO error: {error}")
        ));
        assert!(ends_at("sled::pagecache::logger", &format!("failed to read blob: Io({error:?})")));
        assert!(!ends_at(ITERATOR, "unable to load new segment: Io(Custom { kind: Other, error: \"torn\" })"));
        assert!(!ends_at(ITERATOR, &format!("something else: {error}")));
        assert!(!ends_at("other", &format!("unable to load new segment: Io({error:?})")));
    }
}
