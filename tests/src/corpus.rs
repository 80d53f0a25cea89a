//! The conformance corpora: cases that say, as data, who must reach whom.
//!
//! [`Case`] is what the files hold. A [`Placement`] gives its pods nodes and addresses, a [`Cluster`]
//! carries out its steps and yields the objects of the API as they stand, and a [`Lab`](crate::lab::Lab)
//! can be made the same.

use anyhow::{Context, Result};

pub use self::{
    case::{Case, Labels, Loopback, Owner, PodSpec, Probe, Statement, Step, Topology},
    cluster::Cluster,
    placement::Placement,
};

mod case;
mod cluster;
mod object;
mod placement;

/// A file of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Corpus {
    /// Kubernetes' own end-to-end tests of NetworkPolicy.
    E2e,
    /// What cyclonus generates.
    Cyclonus,
    /// The network policy recipes.
    Recipes,
}

impl Corpus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::E2e, Self::Cyclonus, Self::Recipes];

    /// Its cases, in the file's order. They are part of the binary, so that it runs where no sources
    /// are.
    ///
    /// # Errors
    /// Where the file holds something that the types do not.
    pub fn cases(self) -> Result<Vec<Case>> {
        let text = match self {
            Self::E2e => include_str!("../corpus/e2e-netpol.json"),
            Self::Cyclonus => include_str!("../corpus/cyclonus.json"),
            Self::Recipes => include_str!("../corpus/recipes.json"),
        };
        serde_json::from_str(text).with_context(|| format!("{self:?}"))
    }
}

#[cfg(test)]
mod tests;
