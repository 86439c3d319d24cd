//! A store that fails, and is whole again.
