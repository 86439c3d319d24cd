//! Checkpoints in sled.
