//! Passwords that were checked before: a device that comes back costs no Argon2.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use ring::hmac;

use super::password::{Password, StoredPassword, equal, random};
use super::users::Users;
use crate::sync::lock;

/// Wrong passwords remembered: a device with a wrong one tries again and again.
const MAX_WRONG: usize = 4_096;

/// Recognises user, password and stored hash together, under a key that only this process has and never shows.
pub(super) type PasswordTag = [u8; 32];

/// What earlier checks found.
pub(super) struct PasswordCache {
    /// `None`: the system gave no random bytes, and nothing is remembered.
    key: Option<hmac::Key>,
    found: Mutex<CachedResults>,
}

#[derive(Default)]
struct CachedResults {
    /// One at most for each user of the file.
    right: HashMap<Box<str>, PasswordTag>,
    wrong: HashSet<PasswordTag>,
    /// Those of `wrong`, oldest first.
    order: VecDeque<PasswordTag>,
}

impl std::fmt::Debug for PasswordCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl PasswordCache {
    /// Begins with nothing.
    pub fn new() -> Self {
        let key = random::<32>().ok().map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Self { key, found: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, CachedResults> {
        lock(&self.found)
    }

    /// The tag of a password; `stored`: `None` where there is no such user.
    pub fn tag(&self, user: &str, password: &Password, stored: Option<&StoredPassword>) -> Option<PasswordTag> {
        let stored = stored.map(StoredPassword::to_text).unwrap_or_default();
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [user.as_bytes(), password.as_bytes(), stored.as_bytes()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut tag = PasswordTag::default();
        tag.copy_from_slice(context.sign().as_ref());
        Some(tag)
    }

    /// What an earlier check of the same found.
    pub fn find(&self, user: &str, tag: &PasswordTag) -> Option<bool> {
        let found = self.lock();
        if found.right.get(user).is_some_and(|known| equal(known, tag)) {
            return Some(true);
        }
        found.wrong.contains(tag).then_some(false)
    }

    /// Remembers what a check found.
    pub fn keep(&self, user: &str, tag: PasswordTag, right: bool) {
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

    /// Forgets users that are gone.
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
        let remembered = PasswordCache::new();
        let (pump, password) = ("pump", Password::new(b"secret"));
        let tag = remembered.tag(pump, &password, Some(&stored("secret"))).expect("a key");
        assert_eq!(remembered.find(pump, &tag), None);
        remembered.keep(pump, tag, true);
        assert_eq!(remembered.find(pump, &tag), Some(true));
        for (user, password, hash) in
            [("pum", &b"psecret"[..], "secret"), ("pump", b"Secret", "secret"), ("pump", b"secret", "changed")]
        {
            let other = remembered.tag(user, &Password::new(password), Some(&stored(hash))).expect("a key");
            assert_eq!(remembered.find(user, &other), None, "{user}");
        }
        remembered.keep_only(Some(&Users::default()));
        assert_eq!(remembered.find(pump, &tag), None, "the user is gone");
    }

    #[test]
    fn keys_differ_from_process_to_process() {
        let tag = || PasswordCache::new().tag("u", &Password::new(b"p"), None);
        assert_ne!(tag(), tag());
    }

    #[test]
    fn the_oldest_wrong_passwords_are_forgotten_and_no_right_one() {
        let remembered = PasswordCache::new();
        let tag = |n: usize| remembered.tag("u", &Password::new(n.to_string().as_bytes()), None).expect("a key");
        remembered.keep("u", tag(0), true);
        for n in 1..=MAX_WRONG + 1 {
            remembered.keep("u", tag(n), false);
            remembered.keep("u", tag(n), false);
        }
        assert_eq!((remembered.find("u", &tag(1)), remembered.find("u", &tag(2))), (None, Some(false)));
        assert_eq!(remembered.find("u", &tag(0)), Some(true));
        assert_eq!(remembered.lock().order.len(), MAX_WRONG);
    }
}
