//! What a part has to do to take another configuration while it runs.

use weir::config::Config;

/// Makes a prepared change take effect. It cannot fail.
pub type Apply = Box<dyn FnOnce() + Send>;

/// A part of weir that can take another configuration while it runs.
pub trait Reloadable: Send + Sync {
    /// Reads and checks the files that `config` names for this part. Nothing changes before the returned function is
    /// called.
    ///
    /// # Errors
    /// One sentence for each fault, with its file or key.
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>>;
}
