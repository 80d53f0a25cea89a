//! Which objects a command is about.

use std::path::PathBuf;

use anyhow::ensure;

use super::complain;
use crate::{cluster::Access, objects::Objects};

/// Flags that say where the objects are.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// A file of YAML or JSON objects, or a folder of such files; `-` is standard input. May be given again.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Vec<PathBuf>,
    /// Whether folders below those are read too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Judge as if nothing were in audit: as it will be once all is enforced.
    #[arg(long)]
    enforced: bool,
    /// How to reach the API server, whose objects are listed once. Without it as kubectl: by the variable KUBECONFIG, else
    /// the file in the home folder, else as a pod of the cluster.
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Source {
    /// Whether anything is said of it. Agents judge what is, and not what will be.
    pub(super) const fn is_given(&self) -> bool {
        let somewhere = self.kubeconfig.is_some() || self.context.is_some();
        !self.manifests.is_empty() || somewhere || self.enforced
    }

    /// Whether they are in files.
    pub(super) const fn is_files(&self) -> bool {
        !self.manifests.is_empty()
    }

    /// How a cluster is reached.
    pub(super) fn access(&self) -> Access {
        Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }

    /// Whether folders below are read too.
    pub(super) const fn is_recursive(&self) -> bool {
        self.recursive
    }

    /// Whether everything counts as enforced.
    pub(super) const fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// Reads the files, or asks the API server.
    pub(super) fn load(&self) -> anyhow::Result<Objects> {
        let objects = self.read()?;
        Ok(match self.enforced {
            true => objects.enforced(),
            false => objects,
        })
    }

    fn read(&self) -> anyhow::Result<Objects> {
        if self.manifests.is_empty() {
            let tell = &mut |what: &str| complain(format_args!("{what}"));
            let context = self.context.as_deref();
            return Objects::from_cluster(self.kubeconfig.as_deref(), context, tell);
        }
        Objects::from_files(&self.manifests, self.recursive)
    }

    /// The same, complaining of what is wrong with the objects. What is invalid denies, and is only named.
    ///
    /// # Errors
    ///
    /// Also where an object is missing for being unreadable: whatever is told then may be wrong.
    pub(super) fn load_whole(&self) -> anyhow::Result<Objects> {
        let objects = self.load()?;
        for issue in objects.issues() {
            complain(format_args!("{issue}"));
        }
        for namespace in objects.doubtful_namespaces() {
            complain(format_args!(
                "namespace {namespace} is not among the objects: a selector of other labels than its name does not match it"
            ));
        }
        ensure!(
            !objects.is_incomplete(),
            "it cannot be told while objects are unreadable"
        );
        Ok(objects)
    }
}
