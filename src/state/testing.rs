//! [`MemoryStore`]: a key-value store in memory for the tests of this part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::StateError;
use super::key_value::{KeyValue, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};

/// A store whose values survive a crash only when they were synced. Tests can crash it before every call.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore(pub Arc<Mutex<MemoryValues>>);

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryValues {
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    pub current: BTreeMap<Vec<u8>, Vec<u8>>,
    pub calls_left: Option<usize>,
}

impl MemoryStore {
    fn call(&self) -> Result<MutexGuard<'_, MemoryValues>, StateError> {
        let mut values = self.0.lock().unwrap();
        if let Some(left) = &mut values.calls_left {
            let crash = || StateError::Damaged { directory: Path::new("memory").into(), what: "the crash".into() };
            *left = left.checked_sub(1).ok_or_else(crash)?;
        }
        Ok(values)
    }

    /// The store as a start after a crash finds it, without or with the values that were not synced.
    pub fn crash(&self, keep_unsynced: bool) -> MemoryStore {
        let values = self.0.lock().unwrap();
        let synced = if keep_unsynced { &values.current } else { &values.synced };
        let values = MemoryValues { synced: synced.clone(), current: synced.clone(), calls_left: None };
        MemoryStore(Arc::new(Mutex::new(values)))
    }
}

impl KeyValue for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.call()?.current.get(key).cloned())
    }

    fn put(&self, values: &[(Vec<u8>, &[u8])]) -> Result<(), StateError> {
        assert!(values.len() <= MAX_BATCH_OPERATIONS);
        let mut own = self.call()?;
        for (key, value) in values {
            assert!(value.len() <= MAX_VALUE_BYTES);
            own.current.insert(key.clone(), value.to_vec());
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StateError> {
        let mut values = self.call()?;
        values.synced = values.current.clone();
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, StateError> {
        Ok(0)
    }
}
