//! The output logs (windows, errors) as their readers see them: a query engine over both, and the one follower that
//! decodes each new result once and hands it to every subscriber.
//!
//! A subscriber that never waits (MQTT, event streams) takes results from the [`follow::ResultFollower`]. A reader that
//! sets its own pace keeps a [`cursor::ResultCursor`]: it goes on from disk, however far behind it is.
//!
//! Not responsible for how a result reaches a client: parameters, pages and bodies are `http`'s, topics are `mqtt`'s.

pub mod cursor;
pub mod error;
pub mod feed;
pub mod follow;
mod index;
pub mod log;
pub mod lookup;
pub mod record;
pub mod scan;
#[cfg(test)]
pub(crate) mod testing;
