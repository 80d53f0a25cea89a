//! The chained network plugin: it holds a new pod back until its policies are in the kernel.
//!
//! The runtime runs `palisade` with `CNI_COMMAND` set, last in the list of plugins, when a pod has its addresses and
//! before any of its containers starts. [`plugin`] hands the agent what the other plugins made ([`Attachment`]) and
//! waits for its word; [`server`] is the agent's end. What the plugin knows it also keeps in files ([`record`]), for an
//! agent that starts later. [`install`] brings plugin and entry into the runtime's folders and keeps them there.
//!
//! The rules are those of the CNI specification 1.1.0 (SPEC.md of containernetworking/cni).

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub mod folders;
pub mod install;
mod invocation;
mod list;
mod message;
pub mod plugin;
pub mod record;
pub mod removal;
pub mod server;

/// The plugin's name in the runtime's folders: its program, and its `type` in the list.
pub const NAME: &str = "palisade";
/// Where plugin and agent meet, in the agent's folder on the node.
pub const FOLDER: &str = "/run/palisade/palisade.cni";

/// A pod as the other plugins made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox. A pod whose sandbox is made anew has another.
    pub container: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// `metadata.uid`, or the hash of a static pod; empty where the runtime does not tell.
    pub uid: String,
    /// What the other plugins gave it.
    pub addresses: Vec<IpAddr>,
    /// `CNI_NETNS`: the file of its network namespace, as the runtime names it.
    pub netns: PathBuf,
}
