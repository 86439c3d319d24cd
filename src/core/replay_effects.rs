//! What became of replayed errors: a memory of the last ones, for those who asked for the replay.
//!
//! It is derived from the journal and is not part of the state that a snapshot stores: after a restart, the errors are
//! known whose replays are processed again.

use std::collections::{BTreeMap, VecDeque};

use crate::core::reason::Reason;
use crate::core::replayed::WantedReadings;

/// Replayed errors that are remembered. Beyond it the oldest replays are forgotten.
pub const MAX_REPLAY_EFFECTS: usize = 10_000;

/// What became of one replayed error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayEffect {
    /// Readings that are in windows: 0 or 1, or more if the error stands for several readings or for a message as a whole.
    pub counted: u64,
    /// Readings that were rejected again, by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// The sentence of the first rejection, or that there is no value.
    pub sentence: Option<Box<str>>,
    /// Sequence number of the first new error; `None` also where duplicates are not stored.
    pub error_seq: Option<u64>,
}

/// The effects of the last replays, by the sequence number of the error in the errors log.
#[derive(Debug, Default)]
pub(super) struct ReplayEffects {
    effects: BTreeMap<u64, ReplayEffect>,
    /// Sequence numbers of `effects`, oldest replay first.
    order: VecDeque<u64>,
    /// Rejections of the replay at hand, by index in the message; of a message as a whole under index 0.
    rejected: BTreeMap<u32, ReplayEffect>,
}

impl ReplayEffects {
    /// What became of the replay of this error, if that is remembered.
    pub fn get(&self, error_seq: u64) -> Option<&ReplayEffect> {
        self.effects.get(&error_seq)
    }

    /// A reading of the replay at hand was rejected. `error_seq` is the new error, if it is stored.
    pub fn reject(
        &mut self,
        replay: &WantedReadings,
        index: Option<u32>,
        reason: Reason,
        sentence: &str,
        error_seq: Option<u64>,
    ) {
        let index = index.filter(|_| !replay.whole).unwrap_or(0);
        let effect = self.rejected.entry(index).or_default();
        *effect.rejected.entry(reason).or_default() += 1;
        effect.sentence.get_or_insert_with(|| sentence.into());
        effect.error_seq = effect.error_seq.or(error_seq);
    }

    /// The value of a reading of the replay at hand is absent: the reading is neither in a window nor rejected.
    pub fn absent(&mut self, replay: &WantedReadings, index: u32) {
        if !replay.whole {
            let effect = self.rejected.entry(index).or_default();
            effect.sentence.get_or_insert_with(|| "the device says that there is no value".into());
        }
    }

    /// The replay at hand is processed, and `counted` of its readings are in windows.
    pub fn finish(&mut self, replay: &WantedReadings, counted: u64) {
        let mut effects: BTreeMap<u64, ReplayEffect> = BTreeMap::new();
        for item in &replay.items {
            let of_reading = self.rejected.remove(&item.index).unwrap_or_default();
            let effect = effects.entry(item.stored_seq).or_default();
            effect.counted += match replay.whole {
                true => counted,
                false => u64::from(of_reading.rejected.is_empty() && of_reading.sentence.is_none()),
            };
            for (reason, count) in of_reading.rejected {
                *effect.rejected.entry(reason).or_default() += count;
            }
            effect.sentence = effect.sentence.take().or(of_reading.sentence);
            effect.error_seq = effect.error_seq.or(of_reading.error_seq);
        }
        for (error_seq, effect) in effects {
            self.remember(error_seq, effect);
        }
        self.rejected.clear();
    }

    fn remember(&mut self, error_seq: u64, effect: ReplayEffect) {
        if self.effects.insert(error_seq, effect).is_none() {
            self.order.push_back(error_seq);
        }
        if self.order.len() > MAX_REPLAY_EFFECTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.effects.remove(&oldest);
        }
    }
}
