//! Who holds how much, for the API.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use super::Broker;
use crate::mqtt::session::account::{Account, Holding};

/// What one user or tenant holds, each with its quota (`None`: it has none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserUsage {
    /// Name of the user or tenant; `None`: all clients without credentials.
    pub name: Option<String>,
    /// Tenant of the user.
    pub tenant: Option<String>,
    /// Open connections.
    pub connections: UsageOf,
    /// Sessions, with or without a connection.
    pub sessions: UsageOf,
    /// Subscriptions.
    pub subscriptions: UsageOf,
    /// Retained messages.
    pub retained_messages: UsageOf,
    /// Bytes of the retained messages.
    pub retained_bytes: UsageOf,
    /// Bytes of the queued and unacknowledged messages.
    pub queued_bytes: UsageOf,
    /// Publishes per second that are allowed.
    pub publish_rate: Option<u32>,
}

/// A quantity and its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UsageOf {
    /// How much is held.
    pub used: usize,
    /// The most that may be held; `None`: no quota.
    pub quota: Option<usize>,
}

impl UserUsage {
    fn of(account: &Account) -> Self {
        let usage = |holding| UsageOf { used: account.used(holding), quota: account.quota(holding) };
        Self {
            name: account.name.as_deref().map(str::to_owned),
            tenant: account.tenant.as_ref().and_then(|tenant| tenant.name.as_deref().map(str::to_owned)),
            connections: usage(Holding::Connections),
            sessions: usage(Holding::Sessions),
            subscriptions: usage(Holding::Subscriptions),
            retained_messages: usage(Holding::RetainedMessages),
            retained_bytes: usage(Holding::RetainedBytes),
            queued_bytes: usage(Holding::QueuedBytes),
            publish_rate: account.rate.get(),
        }
    }

    /// What orders the list.
    fn rank(&self) -> (usize, usize, usize) {
        (self.sessions.used, self.subscriptions.used, self.queued_bytes.used + self.retained_bytes.used)
    }
}

impl Broker {
    /// The tenants, and the `most` users with the most sessions, subscriptions and bytes, heaviest first. Users that hold
    /// nothing are left out. The third value is the number of users that hold something.
    pub fn usage(&self, most: usize) -> (Vec<UserUsage>, Vec<UserUsage>, usize) {
        let (tenants, users) = self.accounts.all();
        let list = |accounts: Vec<Arc<Account>>| {
            let held = accounts.iter().filter(|account| !account.is_idle());
            let mut usage: Vec<UserUsage> = held.map(|account| UserUsage::of(account)).collect();
            usage.sort_by_key(|usage| (Reverse(usage.rank()), usage.name.clone()));
            usage
        };
        let (tenants, mut users) = (list(tenants), list(users));
        let count = users.len();
        users.truncate(most);
        (tenants, users, count)
    }
}
