//! Whom a command asks: the agent on this node, or all agents of a cluster.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

use crate::{
    cluster::{
        Access, Cluster,
        agents::{self, Agent, Answer, Selection},
    },
    config::SOCKET,
};

/// Flags that say whom.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Whom to ask")]
pub(super) struct Scope {
    /// The agent that listens there [default: that of this node, where there is one; else all of a cluster].
    #[arg(
        long,
        value_name = "PATH",
        env = "PALISADE_SOCKET",
        conflicts_with_all = ["kubeconfig", "context", "agent_namespace", "node"]
    )]
    pub(super) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(super) access: Access,
    #[command(flatten)]
    pub(super) agents: Selection,
}

/// Whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// One agent, at its socket.
    Agent(PathBuf),
    /// All of a cluster.
    Cluster,
}

impl Scope {
    pub(super) fn asked(&self) -> Asked {
        let usual = Path::new(SOCKET);
        // An agent that is about to listen is the one that is meant, too.
        let beside_agent = std::env::var_os("PALISADE_NODE_NAME").is_some();
        self.asked_at(usual, beside_agent || usual.exists())
    }

    /// Whoever speaks of a cluster means it, also on a node.
    fn asked_at(&self, usual: &Path, on_node: bool) -> Asked {
        let Self {
            socket,
            access,
            agents,
        } = self;
        let speaks_of_cluster = access.kubeconfig.is_some()
            || access.context.is_some()
            || agents.agent_namespace.is_some()
            || !agents.node.is_empty();
        match socket {
            Some(socket) => Asked::Agent(socket.clone()),
            None if on_node && !speaks_of_cluster => Asked::Agent(usual.to_owned()),
            None => Asked::Cluster,
        }
    }

    /// The cluster, and its agents, of which there is one at least.
    pub(super) async fn cluster(&self) -> anyhow::Result<(Cluster, Vec<Agent>)> {
        let cluster = Cluster::connect(&self.access).await.with_context(|| {
            format!("there is no agent at {SOCKET}, and no cluster can be asked")
        })?;
        let agents = agents::find(&cluster, &self.agents).await?;
        ensure!(
            !agents.is_empty(),
            "there are no agents of Palisade in this cluster"
        );
        Ok((cluster, agents))
    }

    /// What each agent of the cluster answers to a command of `palisade`, by node; or why it does not.
    pub(super) fn ask_all<T: DeserializeOwned>(
        &self,
        command: &[&str],
    ) -> anyhow::Result<Vec<(String, Result<T, String>)>> {
        let answers = block_on(async {
            let (cluster, agents) = self.cluster().await?;
            let patience = Duration::from_secs(self.agents.request_timeout);
            Ok(agents::ask(&cluster, &agents, command, patience).await)
        })?;
        let read = |Answer { node, said }| {
            let said = said.and_then(|text: String| {
                let read = serde_json::from_str(&text);
                read.map_err(|error| format!("its answer cannot be read: {error}"))
            });
            (node, said)
        };
        Ok(answers.into_iter().map(read).collect())
    }
}

/// Does what takes an API server.
pub(super) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(task)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        scope: Scope,
    }

    fn asked(words: &str, on_node: bool) -> Asked {
        let words = ["status"].into_iter().chain(words.split_whitespace());
        let line = Line::try_parse_from(words).expect("a command line");
        line.scope.asked_at(Path::new("/usual"), on_node)
    }

    #[test]
    fn on_a_node_its_agent_is_asked_and_elsewhere_the_cluster() {
        assert_eq!(asked("", true), Asked::Agent("/usual".into()));
        assert_eq!(asked("", false), Asked::Cluster);
        assert_eq!(asked("--socket /a", false), Asked::Agent("/a".into()));
        for words in [
            "--context kind",
            "--kubeconfig /k",
            "--node n",
            "--agent-namespace ns",
        ] {
            assert_eq!(asked(words, true), Asked::Cluster, "{words}");
        }
    }

    #[test]
    fn one_agent_and_a_cluster_are_not_both_asked() {
        assert!(Line::try_parse_from(["status", "--socket", "/a", "--context", "b"]).is_err());
    }
}
