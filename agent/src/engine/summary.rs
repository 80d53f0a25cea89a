//! What of the engine everybody may know.

use crate::api::proto::{Condition, MapStatus};

/// What everybody may know at any time, published when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The agent's conditions.
    pub conditions: Vec<Condition>,
    /// Pods of this node that are enforced.
    pub enforced: usize,
    /// Those that are not.
    pub unenforced: usize,
    /// Problems with objects and files.
    pub issues: usize,
    /// How full the maps are.
    pub maps: Vec<MapStatus>,
    /// Addresses, blocks, and tables of pods for which there was no room.
    pub left_out: [usize; 3],
    /// Programs of others that run before ours: at XDP, at ingress and at egress.
    pub before: [usize; 3],
    /// The highest slot in use.
    pub slots: u16,
    /// Whether the network plugin is installed, where it is to be.
    pub plugin: Option<bool>,
    /// What denies nothing.
    pub audit: Audited,
}

/// What is in audit as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// All pods of the node, as the agent was started.
    pub mode: bool,
    /// All pods of the node, until a pause ends.
    pub pause: bool,
    /// So many namespaces.
    pub namespaces: usize,
}
