//! Retained messages at their bounds: whose message gives way.

use std::sync::Arc;

use super::Broker;
use super::meters::MqttLimit;
use super::retained::{RetainedBound, RetainedMessages};
use super::retained_store::RetainedStore;
use crate::mqtt::session::account::{Account, Holding};
use crate::mqtt::session::message::Message;
use crate::sync::lock;

/// Largest number of retained messages that are removed for one that needs their room.
const MAX_REMOVED: usize = 1_024;

impl Broker {
    /// Restores the retained messages of `store`, and stores changes there from now on.
    pub fn keep_retained(&self, store: RetainedStore) {
        let stored = store.load(&self.timeline);
        let mut retained = lock(&self.retained);
        for loaded in stored {
            let owner = self.accounts.of(loaded.owner.as_ref());
            if retained.set(&Arc::new(loaded.message), &owner).is_err() {
                self.meters.limit(MqttLimit::Retained);
            }
        }
        retained.keep_in(store, self.timeline.clone());
    }

    /// Sets the retained message of a topic, which then belongs to `owner`. At a bound of all users, the oldest messages of the
    /// user that holds most are removed, if `owner` holds less. Returns `false` where the topic keeps its previous message.
    pub(super) fn retain(&self, message: &Arc<Message>, owner: &Arc<Account>) -> bool {
        let mut retained = lock(&self.retained);
        for _ in 0..=MAX_REMOVED {
            let bound = match retained.set(message, owner) {
                Ok(()) => return true,
                Err(bound) => bound,
            };
            if bound == RetainedBound::Quota {
                self.meters.over_quota("retained");
                return false;
            }
            if !self.remove_heaviest(&mut retained, owner, bound) {
                break;
            }
        }
        drop(retained);
        self.meters.limit(MqttLimit::Retained);
        false
    }

    /// Removes the oldest retained message of the user that holds most; `false`: `owner` holds as much, or is at its quota.
    fn remove_heaviest(&self, retained: &mut RetainedMessages, owner: &Account, bound: RetainedBound) -> bool {
        let (holding, more) = match bound {
            RetainedBound::Quota => return false,
            RetainedBound::Messages => (Holding::RetainedMessages, 1),
            RetainedBound::Bytes(more) => (Holding::RetainedBytes, more),
        };
        let Some(heaviest) = self.accounts.heaviest(holding, None) else { return false };
        if !heaviest.outweighs(owner, holding, more) {
            return false;
        }
        let Some(topic) = retained.remove_oldest_of(&heaviest) else { return false };
        self.meters.pushed_out("retained_message");
        tracing::debug!(
            topic = &*topic,
            user = heaviest.name.as_deref(),
            "a retained message made room for another user's"
        );
        true
    }
}
