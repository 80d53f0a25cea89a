//! All nodes of a cluster: the DaemonSet of the agents is switched to uninstall mode, and every node waited for.
//!
//! A program that only removed what is on the nodes would not do: a living agent puts it back. So each agent is
//! replaced by one that removes, stays, and is ready when its node is clean. What the DaemonSet's controller does
//! is enough for that: an update that may leave all nodes without an agent.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use ::kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use anyhow::{Context as _, bail};
use serde_json::Value;

use super::template::{MODE, uninstalling};
use crate::source::kube;

/// How often the nodes are asked for.
const LOOK: Duration = Duration::from_secs(1);

/// Where the agents' DaemonSet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSetName {
    namespace: String,
    name: String,
}

impl FromStr for DaemonSetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err("not of the form NAMESPACE/NAME".to_owned()),
        }
    }
}

impl fmt::Display for DaemonSetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Switches the agents to uninstall mode and waits until every node is clean. Tells of each node.
///
/// # Errors
///
/// There is no such DaemonSet, it may not be changed, or nodes are not clean in time: those are named.
pub fn clean(
    kubeconfig: Option<&Path>,
    name: &DaemonSetName,
    timeout: Duration,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = kube::configuration(kubeconfig).await;
        let client = kube::client(config.context("while looking for the API server")?)?;
        let deadline = Instant::now() + timeout;
        let cluster = Cluster::new(client, name);
        let generation = cluster
            .switch(deadline)
            .await
            .with_context(|| format!("while switching the DaemonSet {name} to uninstall mode"))?;
        tell(&format!("DaemonSet {name}: switched to uninstall mode"));
        cluster.wait(generation, deadline, tell).await
    })
}

struct Cluster<'a> {
    name: &'a DaemonSetName,
    sets: Api<DynamicObject>,
    pods: Api<DynamicObject>,
}

impl<'a> Cluster<'a> {
    fn new(client: Client, name: &'a DaemonSetName) -> Self {
        let api = |group, kind| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
            Api::namespaced_with(client.clone(), &name.namespace, &resource)
        };
        Self {
            name,
            sets: api("apps", "DaemonSet"),
            pods: api("", "Pod"),
        }
    }

    /// Changes the DaemonSet; its generation since.
    async fn switch(&self, deadline: Instant) -> anyhow::Result<i64> {
        let name = &self.name.name;
        let set = again(deadline, async || self.sets.get(name).await).await?;
        let patch = Patch::Merge(uninstalling(&set.data)?);
        let params = PatchParams::default();
        let patched = again(deadline, async || {
            self.sets.patch(name, &params, &patch).await
        });
        let generation = patched.await?.metadata.generation;
        generation.context("the API server tells no generation")
    }

    /// Waits until the controller has replaced all pods and all of them are ready.
    async fn wait(
        &self,
        generation: i64,
        deadline: Instant,
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let mut told = BTreeMap::new();
        loop {
            let nodes = match self.look(generation).await {
                Ok(nodes) => nodes,
                Err(error) if Instant::now() < deadline => {
                    tell(&format!("trying again: {error:#}"));
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (node, state) in &nodes.states {
                if told.get(node) != Some(state) {
                    tell(&format!("{node}: {state}"));
                }
            }
            told = nodes.states;
            let unclean: Vec<_> = told
                .iter()
                .filter(|(_, state)| **state != State::Clean)
                .map(|(node, state)| format!("{node} ({state})"))
                .collect();
            if unclean.is_empty() && nodes.without == Some(0) {
                tell(&format!("{} nodes are clean", told.len()));
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(incomplete(&unclean, nodes.without));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, generation: i64) -> anyhow::Result<Nodes> {
        let set = self.sets.get(&self.name.name).await;
        let set = set.context("while reading the DaemonSet")?;
        let selector = selector(&set.data)?;
        let params = ListParams::default().labels(&selector);
        let pods = self.pods.list(&params).await;
        let pods = pods.context("while listing its pods")?;
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let own = pods.items.iter().filter(|pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid)
        });
        let mut states: BTreeMap<String, State> = BTreeMap::new();
        for pod in own {
            let (node, state) = state(pod);
            // While one pod of a node ends, the next may be there.
            let known = states.entry(node).or_insert(state);
            *known = (*known).max(state);
        }
        let status = |key: &str| set.data["status"][key].as_i64();
        let observed = status("observedGeneration").unwrap_or(0) >= generation;
        let wanted = status("desiredNumberScheduled").filter(|_| observed);
        let without = wanted.map(|wanted| usize::try_from(wanted).unwrap_or(0));
        Ok(Nodes {
            without: without.map(|wanted| wanted.saturating_sub(states.len())),
            states,
        })
    }
}

/// What is known of the nodes.
struct Nodes {
    /// Those that have a pod, by name.
    states: BTreeMap<String, State>,
    /// How many should have one and have none; none while the controller has not seen the change.
    without: Option<usize>,
}

/// How far a node is; the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Clean,
    /// A pod removes there, and is not done.
    Removing,
    /// It has not been replaced.
    Agent,
    /// A pod has been told to end, and has not: its node may be gone.
    Ending,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::Removing => "not clean yet, its pod's log says why",
            Self::Agent => "its agent has not been replaced",
            Self::Ending => "its agent does not end",
        })
    }
}

/// The node of a pod, and how far it is.
fn state(pod: &DynamicObject) -> (String, State) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.data["spec"]["nodeName"].as_str();
    let node = node.map_or_else(|| format!("the node of pod {name}"), str::to_owned);
    let containers = pod.data["spec"]["containers"].as_array();
    let removes = containers.into_iter().flatten().any(|container| {
        let arguments = container["args"].as_array();
        arguments.is_some_and(|arguments| arguments.iter().any(|argument| argument == MODE))
    });
    let conditions = pod.data["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let state = match () {
        () if pod.metadata.deletion_timestamp.is_some() => State::Ending,
        () if !removes => State::Agent,
        () if !ready => State::Removing,
        () => State::Clean,
    };
    (node, state)
}

/// The DaemonSet's selector, as a list of pods takes it.
fn selector(set: &Value) -> anyhow::Result<String> {
    let labels = set["spec"]["selector"]["matchLabels"].as_object();
    let labels = labels.context("the DaemonSet selects by no labels")?;
    let terms = labels.iter().map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        format!("{key}={value}")
    });
    Ok(terms.collect::<Vec<_>>().join(","))
}

/// Says which nodes were not reached, and what can be done.
fn incomplete(unclean: &[String], without: Option<usize>) -> String {
    let mut nodes = unclean.to_vec();
    match without {
        None => nodes.push("all: the DaemonSet's controller has not seen the change".to_owned()),
        Some(0) => {}
        Some(count) => nodes.push(format!("{count} without a pod")),
    }
    format!(
        "these nodes are not clean: {}; run `palisade uninstall` on each of them, or try again",
        nodes.join(", ")
    )
}

/// Asks until the API server answers, or refuses.
async fn again<T>(deadline: Instant, ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match ask().await {
            Err(Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(Error::Api(status));
            }
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(args: &[&str], ready: &str, ending: bool) -> DynamicObject {
        let mut pod = json!({
            "metadata": { "name": "x" },
            "spec": { "nodeName": "n", "containers": [{ "args": args }] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if ending {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_name_has_two_parts() {
        let name: DaemonSetName = "a/b".parse().expect("a name");
        assert_eq!(name.to_string(), "a/b");
        for wrong in ["", "a", "/b", "a/"] {
            assert!(wrong.parse::<DaemonSetName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_clean_when_the_pod_that_removes_is_ready() {
        let agent = ["agent"];
        let removes = ["agent", MODE];
        let state = |pod: &DynamicObject| state(pod).1;
        assert_eq!(state(&pod(&removes, "True", false)), State::Clean);
        assert_eq!(state(&pod(&removes, "False", false)), State::Removing);
        assert_eq!(state(&pod(&agent, "True", false)), State::Agent);
        assert_eq!(state(&pod(&agent, "True", true)), State::Ending);
    }

    #[test]
    fn pods_are_asked_for_by_every_label() -> anyhow::Result<()> {
        let set = json!({ "spec": { "selector": { "matchLabels": { "a": "1", "b": "2" } } } });
        assert_eq!(selector(&set)?, "a=1,b=2");
        Ok(())
    }

    #[test]
    fn nodes_that_are_not_clean_are_named() {
        let text = incomplete(&["n (why)".to_owned()], Some(2));
        assert!(text.contains("n (why), 2 without a pod;"), "{text}");
        assert!(incomplete(&[], None).contains("all"));
    }
}
