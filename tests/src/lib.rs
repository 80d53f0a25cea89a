//! The lab, in which nodes, pods and the outside world are network namespaces; probes that say who
//! reaches whom; packets made by hand; the rig, in which single programs run
//! on single frames; and the conformance corpora.
//!
//! Everything that makes namespaces needs root; see [`skip_without_root`].

pub mod agent;
pub mod control_plane;
pub mod corpus;
pub mod cost;
pub mod desk;
pub mod lab;
pub mod manifest;
pub mod packet;
pub mod plugin;
pub mod probe;
pub mod rig;
pub mod site;
pub mod trial;

/// Whether a test that needs root has to be skipped; says so if it has.
#[must_use]
pub fn skip_without_root() -> bool {
    let skip = !rustix::process::geteuid().is_root();
    if skip {
        println!("SKIP: needs root");
    }
    skip
}
