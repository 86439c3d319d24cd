//! Between a connection and the journal: appends, waiting for room, acknowledgements that others' appends release.

use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, FALLBACK, PollStep};
use crate::log::{AppendError, Records};
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::wire::close::CloseReason;

/// Publishes that the journal had no room for.
#[derive(Debug)]
pub(super) struct BlockedAppend {
    pub records: Records,
    pub since: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Appends what the journal had no room for.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Result<PollStep, CloseReason> {
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let Some(BlockedAppend { records, since }) = self.blocked.take() else { return Ok(PollStep::Ready) };
            self.append(context.waker(), records, Some(since), since)?;
            if self.blocked.is_none() {
                // The client was not heard because weir did not listen.
                self.protocol.heard(self.shared.now());
                return Ok(PollStep::Ready);
            }
            if self.shared.journal.poll_room(context).is_pending() {
                return Ok(PollStep::Waiting);
            }
        }
        // There is room, but not enough for these records.
        self.wake_after(context, FALLBACK);
        Ok(PollStep::Waiting)
    }

    /// Appends `records` (read at `read_at`), or keeps them where the journal is full. Returns them emptied if they
    /// were taken.
    pub(super) fn append(
        &mut self,
        waker: &Waker,
        mut records: Records,
        waiting_since: Option<Instant>,
        read_at: Instant,
    ) -> Result<Records, CloseReason> {
        let mut until = None;
        if !records.is_empty() {
            let waits = self.protocol.acks().has_unsealed();
            let appended = {
                // Under the session's lock: once a newer connection has the session, nothing of this one may follow in
                // the journal. What the client sends again there would stand in front of what it repeats.
                let Some(_own) = self.session.own(self.id) else { return Err(self.session.lost(self.id)) };
                self.shared.journal.append(&records, waits.then_some(waker), waiting_since, self.shared.now())
            };
            match appended {
                Ok(lsn) => {
                    until = Some(lsn);
                    if waits {
                        self.own_appends = lsn;
                    }
                }
                Err(AppendError::Full) => {
                    self.blocked = Some(BlockedAppend { records, since: waiting_since.unwrap_or(read_at) });
                    return Ok(Records::default());
                }
                Err(AppendError::Closed) => return Err(CloseReason::Journal),
                Err(AppendError::TooLarge { .. }) => {
                    // The configuration is refused where that can happen.
                    self.shared.meters.limit(MqttLimit::JournalRecord);
                    return Err(CloseReason::Quota);
                }
            }
        }
        records.clear();
        let (fresh, last) = self.protocol.appended(until, read_at);
        if !fresh.is_empty() {
            self.session.hold(self.id, fresh, last);
        }
        self.protocol.begin_append();
        Ok(records)
    }

    /// Makes sure that acknowledgements which wait for something else than this connection's own appends leave too: a
    /// QoS 2 publish repeated after a take-over waits for the append of the connection before.
    pub(super) fn watch_acks(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        if let Some(position) = self.protocol.acks().waits_for() {
            if position <= self.shared.journal.durable() {
                context.waker().wake_by_ref();
            } else if position > self.own_appends {
                self.wake_after(context, FALLBACK);
            }
        }
        Ok(())
    }
}
