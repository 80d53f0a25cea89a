//! What a source is to say of its objects.

use palisade_policy::model::Name;

/// Something that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// The policy.
    pub policy: Name,
    /// The kind of problem, in one word.
    pub reason: &'static str,
    /// The problem and its effect.
    pub note: String,
}
