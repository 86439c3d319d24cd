//! Remembers the results of password checks, so that a device that reconnects costs no Argon2.
//!
//! Neither passwords nor plain digests of them are kept. An entry is an HMAC under a random key that only this process
//! knows and that is never written anywhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use ring::hmac;

use super::password::{Password, equal, random};
use super::stored_password::StoredPassword;
use super::users::Users;
use crate::sync::lock;

/// Largest number of remembered wrong passwords. They are remembered because a device with a wrong password retries for ever.
const MAX_WRONG: usize = 4_096;

/// HMAC-SHA-256 of user, password and stored hash together. A user whose password was changed has other tags, so no entry
/// has to be removed then.
pub(super) type PasswordTag = [u8; 32];

/// The results of earlier checks.
pub(super) struct PasswordCache {
    /// `None`: the operating system gave no random bytes, and nothing is remembered.
    key: Option<hmac::Key>,
    found: Mutex<CachedResults>,
}

#[derive(Default)]
struct CachedResults {
    /// The right password of each user, at most one per user of the file.
    right: HashMap<Box<str>, PasswordTag>,
    /// Wrong passwords. A lookup needs no constant time: nobody can choose a tag without the key.
    wrong: HashSet<PasswordTag>,
    /// The tags of `wrong`, oldest first.
    order: VecDeque<PasswordTag>,
}

impl std::fmt::Debug for PasswordCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PasswordCache").finish_non_exhaustive()
    }
}

impl PasswordCache {
    /// An empty cache with a new key.
    pub fn new() -> Self {
        let key = random::<32>().ok().map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Self { key, found: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, CachedResults> {
        lock(&self.found)
    }

    /// The tag of a password for `user`; `stored` is `None` for an unknown user. `None`: the cache has no key.
    pub fn tag(&self, user: &str, password: &Password, stored: Option<&StoredPassword>) -> Option<PasswordTag> {
        let stored = stored.map(StoredPassword::to_text).unwrap_or_default();
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        // Each part is preceded by its length: "ab" with "c" must not have the tag of "a" with "bc".
        for part in [user.as_bytes(), password.as_bytes(), stored.as_bytes()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut tag = PasswordTag::default();
        tag.copy_from_slice(context.sign().as_ref());
        Some(tag)
    }

    /// Whether the password was right at an earlier check; `None`: it was not checked before.
    pub fn find(&self, user: &str, tag: &PasswordTag) -> Option<bool> {
        let found = self.lock();
        if found.right.get(user).is_some_and(|known| equal(known, tag)) {
            return Some(true);
        }
        found.wrong.contains(tag).then_some(false)
    }

    /// Remembers the result of a check.
    pub fn insert(&self, user: &str, tag: PasswordTag, right: bool) {
        let mut found = self.lock();
        if right {
            found.right.insert(user.into(), tag);
            return;
        }
        if !found.wrong.insert(tag) {
            return;
        }
        found.order.push_back(tag);
        if found.order.len() > MAX_WRONG
            && let Some(oldest) = found.order.pop_front()
        {
            found.wrong.remove(&oldest);
        }
    }

    /// Forgets the right passwords of users that are not in `users`.
    pub fn keep_only(&self, users: Option<&Users>) {
        self.lock().right.retain(|name, _| users.is_some_and(|users| users.get(name).is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(secret: &str) -> StoredPassword {
        StoredPassword::of_generated(&Password::new(secret.as_bytes()))
    }

    #[test]
    fn only_the_same_user_password_and_hash_are_recognised() {
        let cache = PasswordCache::new();
        let (pump, password) = ("pump", Password::new(b"secret"));
        let tag = cache.tag(pump, &password, Some(&stored("secret"))).expect("a key");
        assert_eq!(cache.find(pump, &tag), None);
        cache.insert(pump, tag, true);
        assert_eq!(cache.find(pump, &tag), Some(true));
        for (user, password, hash) in
            [("pum", &b"psecret"[..], "secret"), ("pump", b"Secret", "secret"), ("pump", b"secret", "changed")]
        {
            let other = cache.tag(user, &Password::new(password), Some(&stored(hash))).expect("a key");
            assert_eq!(cache.find(user, &other), None, "{user}");
        }
        cache.keep_only(Some(&Users::default()));
        assert_eq!(cache.find(pump, &tag), None, "the user is gone");
    }

    #[test]
    fn keys_differ_from_process_to_process() {
        let tag = || PasswordCache::new().tag("u", &Password::new(b"p"), None);
        assert_ne!(tag(), tag());
    }

    #[test]
    fn the_oldest_wrong_passwords_are_forgotten_and_no_right_one() {
        let cache = PasswordCache::new();
        let tag = |n: usize| cache.tag("u", &Password::new(n.to_string().as_bytes()), None).expect("a key");
        cache.insert("u", tag(0), true);
        for n in 1..=MAX_WRONG + 1 {
            cache.insert("u", tag(n), false);
            cache.insert("u", tag(n), false);
        }
        assert_eq!((cache.find("u", &tag(1)), cache.find("u", &tag(2))), (None, Some(false)));
        assert_eq!(cache.find("u", &tag(0)), Some(true));
        assert_eq!(cache.lock().order.len(), MAX_WRONG);
    }
}
