//! Applies journal batches to the operator's state.

use crate::core::batch::BatchContext;
use crate::core::codec::DecodeError;
use crate::core::decode::DecodedMessage;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::record::{InvalidRecord, Record, RecordDecoder};
use crate::core::settings::Settings;
use crate::core::watermark::NONE_MS;

impl Operator {
    /// Applies one journal batch. `first_lsn` is the position of the first record given, `arrival_ms` the arrival time of
    /// the batch. A batch without records lets time pass.
    ///
    /// # Errors
    /// A record that is not of this format. The records before it are applied, the batch is not finished: the operator
    /// must not be used any further.
    pub fn apply<'a>(
        &mut self,
        first_lsn: u64,
        arrival_ms: i64,
        records: impl Iterator<Item = &'a [u8]>,
        out: &mut impl Collector,
    ) -> Result<(), InvalidRecord> {
        let mut decoder = RecordDecoder::default();
        let mut message = DecodedMessage::default();
        let mut batch = BatchContext::new(first_lsn, arrival_ms);
        let mut begun = false;
        for bytes in records {
            let record = decoder.decode(bytes)?;
            if !begun {
                self.begin_batch(arrival_ms, record == Record::Resumed, out);
                begun = true;
            }
            match record {
                Record::Publish(publish, same_origin) => {
                    self.publish(&mut batch, &mut message, publish, same_origin, out);
                }
                Record::Resumed => self.listen_again(),
                Record::Tick => {}
                Record::Replay(replay) => self.replay(batch.lsn, arrival_ms, &mut message, replay, out),
                Record::Settings(json) => {
                    let index = (batch.lsn - first_lsn) as usize;
                    self.change_settings(json, out).map_err(|what| InvalidRecord { index, what })?;
                    batch.forget_origin();
                }
            }
            batch.lsn += 1;
        }
        if !begun {
            self.begin_batch(arrival_ms, false, out);
        }
        self.end_batch(out);
        Ok(())
    }

    fn begin_batch(&mut self, arrival_ms: i64, resumed: bool, out: &mut dyn Collector) {
        let before_ms = self.clocks.journal.now_ms;
        if resumed {
            self.settle_all();
        }
        self.clocks.journal.now_ms = before_ms.max(arrival_ms);
        if before_ms != NONE_MS {
            let gap_ms = self.clocks.journal.now_ms.saturating_sub(before_ms);
            let awake_ms = if resumed { 0 } else { gap_ms.min(self.longest_awake_ms()) };
            self.clocks.journal.paused_ms = self.clocks.journal.paused_ms.saturating_add(gap_ms - awake_ms);
        }
        if resumed {
            self.clocks.journal.listening_since_ms = self.clocks.journal.now_ms;
        }
        self.fire_idle(out);
        self.forget_silent(out);
    }

    /// Most that the time between two batches counts against `state.device_ttl`: half of it. A clock that is set right, by
    /// years on a machine that does not keep the time, must not make weir forget which messages it has counted.
    fn longest_awake_ms(&self) -> i64 {
        self.settings.current.device_ttl_ms.map_or(i64::MAX, |ttl_ms| ttl_ms / 2)
    }

    /// A `Resumed` record: silence starts at zero. Silence before it has already had its effect on watermarks.
    fn listen_again(&mut self) {
        if self.clocks.journal.listening_since_ms != self.clocks.journal.now_ms {
            self.settle_all();
            self.clocks.journal.listening_since_ms = self.clocks.journal.now_ms;
        }
    }

    /// Records from here on are processed under the settings that `json` holds. What came before them is finished first.
    fn change_settings(&mut self, json: &[u8], out: &mut impl Collector) -> Result<(), DecodeError> {
        let settings = Settings::from_json(json)?;
        if !self.settings.is_fixed && settings != self.settings.current {
            self.end_batch(out);
            self.reconfigure(settings, out);
        }
        Ok(())
    }

    fn end_batch(&mut self, out: &mut dyn Collector) {
        self.fire_touched(out);
        self.drop_expired();
        debug_assert_eq!(self.totals.unaccounted(), 0, "every reading is in a window or rejected");
    }
}
