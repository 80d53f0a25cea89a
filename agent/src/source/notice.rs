//! What a source is to say of its objects.

use std::sync::Arc;

use super::Key;

/// Something that users must know of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// The object.
    pub about: Key,
    /// Its uid, where only who says it knows; the source knows those of policies.
    pub uid: Option<Arc<str>>,
    /// The kind of problem, in one word.
    pub reason: &'static str,
    /// The problem and its effect.
    pub note: String,
}
