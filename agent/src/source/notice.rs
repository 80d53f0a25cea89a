//! What a source is to say of its objects.

use super::Key;

/// Something that users must know of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// The object.
    pub about: Key,
    /// The kind of problem, in one word.
    pub reason: &'static str,
    /// The problem and its effect.
    pub note: String,
}
