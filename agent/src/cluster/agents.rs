//! The agents of a cluster, and what all of them answer: each runs a command of its own `palisade`, which asks it at
//! its socket.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream};
use kube::api::{DynamicObject, ListParams};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Cluster, Kind,
    exec::{Container, Ended, Process},
};
use crate::{api::proto::Flow, config::SOCKET};

/// By which labels the chart's agents are known, whatever the release is called.
const LABELS: &str = "app.kubernetes.io/part-of=palisade,app.kubernetes.io/component=agent";
/// The container of an agent's pod.
const CONTAINER: &str = "agent";
/// For how long an agent may take to answer, where nothing says, seconds.
const REQUEST_TIMEOUT: u64 = 10;
/// How many agents are asked at once.
const AT_ONCE: usize = 32;

/// Flags of commands that ask every agent.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Selection {
    /// The agents' namespace, where one may not look for them in all.
    #[arg(long, value_name = "NS")]
    pub agent_namespace: Option<String>,
    /// Only the agent of this node; may be given again.
    #[arg(long, value_name = "NODE")]
    pub node: Vec<String>,
    /// For how many seconds an agent may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = REQUEST_TIMEOUT)]
    pub request_timeout: u64,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            agent_namespace: None,
            node: Vec::new(),
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// Its node.
    pub node: String,
    /// Where it runs.
    pub place: Container,
    /// Its image.
    pub image: String,
    /// Why it cannot be asked.
    pub fault: Option<String>,
    /// Where it listens, in its container.
    socket: String,
}

/// A DaemonSet of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSet {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// On how many nodes an agent should be.
    pub desired: u64,
    /// On how many one is ready.
    pub ready: u64,
    /// The agents' image.
    pub image: Option<String>,
}

/// What one agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its node.
    pub node: String,
    /// What the command printed; or why there is no answer.
    pub said: Result<String, String>,
}

impl Answer {
    /// The flows that were printed, one on a line.
    ///
    /// # Errors
    ///
    /// There is no answer, or it is none of flows; why.
    pub fn flows(&self) -> Result<Vec<Flow>, String> {
        let text = self.said.as_ref().map_err(Clone::clone)?;
        let read: Result<Vec<Flow>, _> = text.lines().map(serde_json::from_str).collect();
        read.map_err(|error| error.to_string())
    }
}

/// The agents of a cluster, one for each node, by node.
///
/// # Errors
///
/// Pods cannot be listed.
pub async fn find(cluster: &Cluster, selection: &Selection) -> anyhow::Result<Vec<Agent>> {
    let pods = cluster.objects(Kind::Pod, selection.agent_namespace.as_deref());
    let listed = pods.list(&ListParams::default().labels(LABELS)).await;
    let listed = listed.context("while listing the agents' pods")?;
    let agents = of_nodes(listed.items.iter().map(agent));
    let named = |agent: &Agent| selection.node.is_empty() || selection.node.contains(&agent.node);
    if let Some(missing) = selection
        .node
        .iter()
        .find(|node| !agents.iter().any(|agent| agent.node == **node))
    {
        bail!("there is no agent on node {missing}");
    }
    Ok(agents.into_iter().filter(named).collect())
}

/// Their DaemonSets: one, unless somebody has installed it twice.
///
/// # Errors
///
/// DaemonSets cannot be listed.
pub async fn sets(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<Vec<AgentSet>> {
    let sets = cluster.objects(Kind::DaemonSet, namespace);
    let listed = sets.list(&ListParams::default().labels(LABELS)).await;
    let listed = listed.context("while listing the agents' DaemonSets")?;
    Ok(listed.items.iter().map(agent_set).collect())
}

/// Has every agent answer a command of `palisade`; answers in the order of the agents.
pub async fn ask(
    cluster: &Cluster,
    agents: &[Agent],
    command: &[&str],
    patience: Duration,
) -> Vec<Answer> {
    let answers = agents.iter().map(|agent| async move {
        let said = tokio::time::timeout(patience, answer(cluster, agent, command)).await;
        Answer {
            node: agent.node.clone(),
            said: said.unwrap_or_else(|_elapsed| {
                Err(format!("no answer within {} s", patience.as_secs()))
            }),
        }
    });
    stream::iter(answers).buffered(AT_ONCE).collect().await
}

/// Starts a command of `palisade` beside an agent, to be read line by line.
///
/// # Errors
///
/// It cannot be started; why.
pub async fn start(cluster: &Cluster, agent: &Agent, command: &[&str]) -> Result<Process, String> {
    if let Some(fault) = &agent.fault {
        return Err(fault.clone());
    }
    let words = ["palisade"].into_iter().chain(command.iter().copied());
    let socket = ["--socket", agent.socket.as_str()];
    let words: Vec<String> = words.chain(socket).map(str::to_owned).collect();
    let started = Process::start(cluster, &agent.place, &words).await;
    started.map_err(|error| format!("{error:#}"))
}

async fn answer(cluster: &Cluster, agent: &Agent, command: &[&str]) -> Result<String, String> {
    let process = start(cluster, agent, command).await?;
    let finished = process.finish().await;
    let (text, ended) = finished.map_err(|error| format!("{error:#}"))?;
    judge(text, ended)
}

/// What a command printed, if it answered: no is an answer, too, and so is that it is not known.
fn judge(text: String, Ended { code, complaint }: Ended) -> Result<String, String> {
    match code {
        Some(0) => Ok(text),
        Some(_) if !text.is_empty() => Ok(text),
        _ if !complaint.is_empty() => Err(complaint),
        Some(code) => Err(format!("it exits {code}")),
        None => Err("the connection ended".to_owned()),
    }
}

/// Of the pods of a node the one that can be asked: while one ends, the next may be there.
fn of_nodes(agents: impl Iterator<Item = Agent>) -> Vec<Agent> {
    let mut nodes: BTreeMap<String, Agent> = BTreeMap::new();
    for agent in agents {
        match nodes.get(&agent.node) {
            Some(known) if known.fault.is_none() => {}
            _ => {
                nodes.insert(agent.node.clone(), agent);
            }
        }
    }
    nodes.into_values().collect()
}

fn agent(pod: &DynamicObject) -> Agent {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let (spec, status) = (&pod.data["spec"], &pod.data["status"]);
    let container = named(&spec["containers"]);
    let state = named(&status["containerStatuses"]);
    let running = state.is_some_and(|state| state["state"]["running"].is_object());
    let fault = match () {
        () if pod.metadata.deletion_timestamp.is_some() => Some(format!("pod {name} is ending")),
        () if running => None,
        () => {
            let waiting = state.map(|state| text(&state["state"]["waiting"]["reason"]));
            let why = waiting.filter(|why| !why.is_empty());
            let why = why.unwrap_or_else(|| text(&status["phase"]));
            Some(format!("pod {name} does not run: {why}"))
        }
    };
    let node = text(&spec["nodeName"]);
    Agent {
        node: match node.is_empty() {
            true => format!("the node of pod {name}"),
            false => node,
        },
        place: Container {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: name,
            container: CONTAINER.to_owned(),
        },
        image: container.map(|it| text(&it["image"])).unwrap_or_default(),
        fault,
        socket: container
            .and_then(socket)
            .unwrap_or_else(|| SOCKET.to_owned()),
    }
}

/// Where an agent was told to listen, by a flag or by its variable.
fn socket(container: &Value) -> Option<String> {
    let words = container["args"].as_array();
    let words: Vec<_> = words
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let joined = words.iter().find_map(|word| word.strip_prefix("--socket="));
    let apart = words.windows(2).find(|pair| pair[0] == "--socket");
    let flag = joined.or(apart.map(|pair| pair[1]));
    let variables = container["env"].as_array();
    let variable = variables
        .into_iter()
        .flatten()
        .find(|variable| variable["name"] == "PALISADE_SOCKET");
    flag.or(variable.and_then(|variable| variable["value"].as_str()))
        .map(str::to_owned)
}

/// Of a pod's containers, or what is said of them, the agent's.
fn named(containers: &Value) -> Option<&Value> {
    let mut containers = containers.as_array()?.iter();
    containers.find(|container| container["name"] == CONTAINER)
}

fn agent_set(set: &DynamicObject) -> AgentSet {
    let metadata = &set.metadata;
    let count = |key: &str| set.data["status"][key].as_u64().unwrap_or(0);
    let image = named(&set.data["spec"]["template"]["spec"]["containers"]);
    AgentSet {
        name: format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        ),
        desired: count("desiredNumberScheduled"),
        ready: count("numberReady"),
        image: image.and_then(|container| Some(container["image"].as_str()?.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, state: Value) -> DynamicObject {
        let pod = json!({
            "metadata": { "name": name, "namespace": "kube-system" },
            "spec": { "nodeName": node, "containers": [{ "name": "agent", "image": "palisade:1" }] },
            "status": { "phase": "Pending", "containerStatuses": [{ "name": "agent", "state": state }] },
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn agents_are_known_by_what_the_chart_gives_them() {
        let manifests = include_str!("../../../deploy/kustomize/palisade.yaml");
        let options = serde_saphyr::options! { strict_booleans: true };
        let all: Vec<Value> =
            serde_saphyr::from_multiple_with_options(manifests, options).expect("YAML");
        let set = all.iter().find(|object| object["kind"] == "DaemonSet");
        let set = set.expect("a DaemonSet");
        let template = &set["spec"]["template"];
        for label in LABELS.split(',') {
            let (key, value) = label.split_once('=').expect("a label");
            assert_eq!(template["metadata"]["labels"][key], value, "{key} of pods");
            assert_eq!(
                set["metadata"]["labels"][key], value,
                "{key} of the DaemonSet"
            );
        }
        assert!(named(&template["spec"]["containers"]).is_some());
    }

    #[test]
    fn an_agent_that_does_not_run_has_a_fault() {
        let agent = |state: Value| agent(&pod("p", "n", state));
        assert_eq!(agent(json!({ "running": {} })).fault, None);
        let fault = agent(json!({ "waiting": { "reason": "ErrImagePull" } })).fault;
        assert_eq!(fault.as_deref(), Some("pod p does not run: ErrImagePull"));
        let fault = agent(json!({})).fault;
        assert_eq!(fault.as_deref(), Some("pod p does not run: Pending"));
    }

    #[test]
    fn no_is_an_answer_and_so_is_nothing() {
        let ended = |code, complaint: &str| Ended {
            code,
            complaint: complaint.to_owned(),
        };
        let judge = |text: &str, ended| judge(text.to_owned(), ended);
        assert_eq!(judge("", ended(Some(0), "")), Ok(String::new()));
        assert_eq!(judge("no", ended(Some(1), "")), Ok("no".to_owned()));
        assert_eq!(judge("", ended(Some(1), "why")), Err("why".to_owned()));
        assert_eq!(judge("", ended(Some(3), "")), Err("it exits 3".to_owned()));
        let cut_off = judge("half", ended(None, ""));
        assert_eq!(cut_off, Err("the connection ended".to_owned()));
    }

    #[test]
    fn of_two_pods_of_a_node_the_one_that_runs_is_asked() {
        let running = || json!({ "running": {} });
        let pods = [
            pod("old", "n", json!({ "terminated": {} })),
            pod("new", "n", running()),
            pod("newer", "n", json!({})),
            pod("other", "m", running()),
        ];
        let agents = of_nodes(pods.iter().map(agent));
        let names: Vec<_> = agents
            .iter()
            .map(|agent| agent.place.pod.as_str())
            .collect();
        assert_eq!(names, ["other", "new"]);
    }

    #[test]
    fn an_agent_is_asked_where_it_was_told_to_listen() {
        let by = |container: Value| socket(&container);
        assert_eq!(by(json!({})), None);
        let flag = json!({ "args": ["agent", "--socket=/a"], "env": [{ "name": "PALISADE_SOCKET", "value": "/b" }] });
        assert_eq!(by(flag).as_deref(), Some("/a"));
        assert_eq!(
            by(json!({ "args": ["--socket", "/c"] })).as_deref(),
            Some("/c")
        );
        let variable = json!({ "env": [{ "name": "PALISADE_SOCKET", "value": "/b" }] });
        assert_eq!(by(variable).as_deref(), Some("/b"));
    }
}
