//! The place in the retained messages up to which a new subscription was sent them.

/// Which retained messages a subscription still gets. What is retained later comes to it as any message does, and must not
/// come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetainedCursor {
    /// Those on topics behind this one; empty: from the first on.
    pub after: Box<str>,
    /// Those that came with this change or an earlier one.
    pub until: u64,
}

impl RetainedCursor {
    /// All up to a later moment are due.
    pub fn extend_to(&mut self, later: &RetainedCursor) {
        self.until = later.until;
    }
}
