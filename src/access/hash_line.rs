//! A line of passwords that wait for their check: bounded by memory, and fair between clients.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use tokio::sync::oneshot;

use super::password::Password;
use super::stored_password::{Argon2Hash, HashError};
use crate::admission::network_of;

/// One password that waits for its check.
#[derive(Debug)]
pub(super) struct HashJob {
    pub hash: HiddenHash,
    pub password: Password,
    /// Memory of the connection.
    pub bytes: usize,
    pub answer: oneshot::Sender<Result<bool, HashError>>,
}

/// A hash that `Debug` does not print.
pub(super) struct HiddenHash(pub Argon2Hash);

impl fmt::Debug for HiddenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Argon2(…)")
    }
}

/// A line of passwords. Those of one network and user name are a group; the groups take turns, so a client waits for one
/// check of each other group, however many passwords others send. The user name counts as the client presents it: an unknown
/// user must not wait longer or shorter than a known one, or the time would tell which users exist.
#[derive(Debug, Default)]
pub(super) struct HashLine {
    /// By the hash of network and user name. Two groups with one hash are one group.
    groups: HashMap<u64, VecDeque<HashJob>>,
    /// The groups in the order of their turns.
    turns: VecDeque<u64>,
    hasher: RandomState,
    jobs: usize,
    bytes: usize,
}

impl HashLine {
    /// Number of passwords in the line.
    pub fn len(&self) -> usize {
        self.jobs
    }

    /// Appends the password of a client. At the bound of `max_bytes`, the newest password of the longest group is dropped,
    /// which refuses its client. Returns `false` if the client's own group is as long: then its password is refused.
    pub fn push(&mut self, job: HashJob, (address, user): (Option<IpAddr>, &str), max_bytes: usize) -> bool {
        let group = self.hasher.hash_one((network_of(address), user));
        while self.jobs > 0 && self.bytes.saturating_add(job.bytes) > max_bytes {
            let own = self.groups.get(&group).map_or(0, VecDeque::len);
            let longest = self.groups.iter().max_by_key(|(_, jobs)| jobs.len());
            let Some((longest, _)) = longest.filter(|(_, jobs)| jobs.len() > own + 1) else { return false };
            self.drop_newest(*longest);
        }
        (self.jobs, self.bytes) = (self.jobs + 1, self.bytes + job.bytes);
        match self.groups.entry(group) {
            Entry::Occupied(mut jobs) => jobs.get_mut().push_back(job),
            Entry::Vacant(jobs) => {
                jobs.insert(VecDeque::from([job]));
                self.turns.push_back(group);
            }
        }
        true
    }

    fn drop_newest(&mut self, group: u64) {
        // The group has at least two passwords, so it keeps its turn.
        if let Some(job) = self.groups.get_mut(&group).and_then(VecDeque::pop_back) {
            (self.jobs, self.bytes) = (self.jobs - 1, self.bytes - job.bytes);
        }
    }

    /// Takes the password whose turn it is.
    pub fn pop(&mut self) -> Option<HashJob> {
        let group = self.turns.pop_front()?;
        let Entry::Occupied(mut jobs) = self.groups.entry(group) else { return None };
        let job = jobs.get_mut().pop_front()?;
        if jobs.get().is_empty() {
            jobs.remove();
        } else {
            self.turns.push_back(group);
        }
        (self.jobs, self.bytes) = (self.jobs - 1, self.bytes - job.bytes);
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stored_password::StoredPassword;
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    fn job(text: &str) -> (HashJob, oneshot::Receiver<Result<bool, HashError>>) {
        let Ok(StoredPassword::Argon2(hash)) = StoredPassword::parse(HASH) else { panic!("a hash") };
        let (answer, answered) = oneshot::channel();
        (HashJob { hash: HiddenHash(hash), password: Password::new(text.as_bytes()), bytes: 10, answer }, answered)
    }

    fn push(line: &mut HashLine, user: &str, text: &str) -> bool {
        let (job, answered) = job(text);
        std::mem::forget(answered);
        line.push(job, (None, user), 50)
    }

    fn order(line: &mut HashLine) -> String {
        std::iter::from_fn(|| line.pop())
            .map(|job| String::from_utf8_lossy(job.password.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn users_take_turns() {
        let mut line = HashLine::default();
        for (user, text) in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("c", "5")] {
            assert!(push(&mut line, user, text));
        }
        assert_eq!(order(&mut line), "14523");
        assert!(line.groups.is_empty() && line.turns.is_empty() && (line.jobs, line.bytes) == (0, 0));
    }

    #[test]
    fn at_the_bound_the_longest_group_loses_its_newest() {
        let mut line = HashLine::default();
        for text in ["1", "2", "3", "4", "5"] {
            assert!(push(&mut line, "attacked", text));
        }
        assert!(!push(&mut line, "attacked", "6"), "the line is full");
        assert!(push(&mut line, "other", "7") && push(&mut line, "third", "8"));
        assert_eq!(line.len(), 5);
        assert_eq!(order(&mut line), "17823");
    }

    #[test]
    fn a_password_larger_than_the_bound_waits_alone() {
        let mut line = HashLine::default();
        let ((big, _answered), (next, _)) = (job("big"), job("next"));
        assert!(line.push(HashJob { bytes: 100, ..big }, (None, "a"), 50));
        assert!(!line.push(next, (None, "b"), 50));
    }

    #[test]
    fn a_dropped_password_is_answered() {
        let mut line = HashLine::default();
        let (first, _first) = job("1");
        let (second, mut answered) = job("2");
        assert!(line.push(first, (None, "a"), 20) && line.push(second, (None, "a"), 20));
        assert!(line.push(job("3").0, (None, "b"), 20));
        assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
