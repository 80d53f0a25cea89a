//! What a scenario has to do with the agents of Palisade, where there are any: they are ended, and tell what they denied.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use kube::api::DeleteParams;

use super::{ANSWER, Lane, PAUSE, Stop, objects::refused};
use crate::cluster::{
    Kind,
    agents::{self, Agent, Selection},
};

/// How long agents may take to come back.
const RESTART: Duration = Duration::from_secs(120);

impl Lane<'_> {
    /// The agents on the nodes of this test.
    pub(super) async fn agents(&self) -> Result<Vec<Agent>, Stop> {
        let agents = agents::find(self.cluster, &Selection::default()).await?;
        match agents.iter().all(|agent| agent.fault.is_none()) && !agents.is_empty() {
            true => Ok(agents),
            false => Err(Stop::Skipped("there are no agents of Palisade".to_owned())),
        }
    }

    pub(super) async fn end_agents(&self, agents: &[Agent]) -> anyhow::Result<()> {
        let deletions = agents.iter().map(|Agent { place, .. }| async move {
            let api = self.cluster.objects(Kind::Pod, Some(&place.namespace));
            let deleted = api.delete(&place.pod, &DeleteParams::default()).await;
            deleted.map_err(|error| refused("end an agent", &error))
        });
        try_join_all(deletions).await?;
        Ok(())
    }

    /// Waits until every node has another agent than before, which has taken over.
    pub(super) async fn await_agents(&self, before: &[Agent]) -> anyhow::Result<()> {
        let end = Instant::now() + RESTART;
        loop {
            let present = agents::find(self.cluster, &Selection::default()).await?;
            let back = before.iter().all(|old| {
                present.iter().any(|new| {
                    new.node == old.node && new.place != old.place && new.fault.is_none()
                })
            });
            if back {
                let answers =
                    agents::ask(self.cluster, &present, &["status", "-o", "json"], ANSWER);
                if answers.await.iter().all(|answer| answer.said.is_ok()) {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < end, "the agents do not come back");
            tokio::time::sleep(PAUSE * 4).await;
        }
    }

    /// What agents have denied in this lane since then; empty where there are none.
    pub(super) async fn flows(&self, since: Instant) -> Vec<String> {
        let age = format!("{}ms", since.elapsed().as_millis());
        let mut command = vec!["flows", "-o", "compact", "--since", &age, "--last", "20"];
        for namespace in self.set.places.namespaces.values() {
            command.extend(["--namespace", namespace]);
        }
        let Ok(agents) = agents::find(self.cluster, &Selection::default()).await else {
            return Vec::new();
        };
        let answers = agents::ask(self.cluster, &agents, &command, ANSWER).await;
        let lines = answers.into_iter().flat_map(|answer| {
            let said = answer.said.unwrap_or_default();
            let lines = said.lines().map(|line| format!("{}: {line}", answer.node));
            lines.collect::<Vec<_>>()
        });
        lines.collect()
    }
}
