//! Real connections, opened from a pod that is there, and the verdicts that their packets met.
//!
//! An ephemeral container of Palisade's image opens them: it has the pod's own network, and nothing of the pod is touched.
//! Agents tell of allowed flows for as long as they are asked; the source port tells whose flow it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use palisade_policy::model::Name;
use serde::Serialize;

use self::places::{Places, Pod};
use crate::{
    api::proto::Flow,
    cluster::{
        Cluster,
        agents::{self, Agent, Selection},
    },
    connectivity::{
        session::Session,
        wire::{Outcome, Protocol, Task},
    },
    explain::{End, Port},
};

mod places;
mod visit;

/// How often agents are asked what became of a connection, and how long is waited before each time, ms: they hear of it from
/// the kernel a moment later.
const LOOKS: [u64; 2] = [300, 1200];
/// As often again where nothing but they can tell: a busy node takes its time.
const MORE_LOOKS: [u64; 2] = [2500, 4000];
/// How many flows agents are asked for at most: those that came while one connection was tried.
const FLOWS: &str = "1000";

/// Where connections are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A pod, an address or a Service.
    End(End),
    /// A name that the pod is to resolve.
    Host(String),
}

/// Where connections are to go, and at which port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Whereto.
    pub target: Target,
    /// At which port; of a Service without one, at each.
    pub port: Option<Port>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(end) => end.fmt(f),
            Self::Host(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.target),
            None => self.target.fmt(f),
        }
    }
}

/// `NAMESPACE/POD`, `service/NAMESPACE/NAME`, an address or a name of a host; each, an IPv6 address in brackets, with `:PORT`
/// or `:PORT/PROTOCOL`.
impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = |text: &str| -> Result<Target, String> {
            match text.parse() {
                Ok(end) => Ok(Target::End(end)),
                Err(_) if is_host(text) => Ok(Target::Host(text.to_owned())),
                Err(error) => Err(format!("{error}, or a host's name")),
            }
        };
        if let Some((address, rest)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) {
            let target = bare(address)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port.parse().map_err(|error| format!("{error}"))?),
                None if rest.is_empty() => None,
                None => return Err(format!("expected a port, not `{rest}`")),
            };
            return Ok(Self { target, port });
        }
        // An IPv6 address has colons of its own.
        let parts = text.split_once(':').filter(|(_, rest)| !rest.contains(':'));
        match parts {
            Some((target, port)) => Ok(Self {
                target: bare(target)?,
                port: Some(port.parse().map_err(|error| format!("{error}"))?),
            }),
            None => Ok(Self {
                target: bare(text)?,
                port: None,
            }),
        }
    }
}

/// Whether it could be a host's name (RFC 1123).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let good = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
        !label.is_empty() && label.len() < 64 && label.bytes().all(good)
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    // What ends in a number is a mistaken address.
    text.split('.').all(label) && !last.bytes().all(|letter| letter.is_ascii_digit())
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The pod that connections were opened from.
    pub from: String,
    /// Whereto.
    pub to: String,
    /// Each that was tried: of several addresses and ports each.
    pub attempts: Vec<Attempt>,
    /// Nodes whose agents did not tell of verdicts, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// A connection that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Whereto.
    pub target: SocketAddr,
    /// By what.
    pub protocol: Protocol,
    /// What came back.
    pub outcome: Outcome,
    /// How long it took, ms.
    pub took_ms: u64,
    /// The port that it was opened from.
    pub source_port: u16,
    /// Whether policy lets it pass, as far as it can be told.
    pub passes: Option<bool>,
    /// What the programs that its packets met said of them, in that order.
    pub verdicts: Vec<Verdict>,
}

/// What a program said of a packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The node.
    pub node: String,
    /// The program: `from_pod`, `to_pod`, or `to_wire`, at the device by which the packet left.
    pub program: &'static str,
    /// The verdict.
    #[serde(flatten)]
    pub flow: Flow,
}

impl Report {
    /// Whether policy lets everything pass that was tried, as far as it can be told.
    #[must_use]
    pub fn passes(&self) -> Option<bool> {
        let each = self.attempts.iter().map(|attempt| attempt.passes);
        each.reduce(|all, one| match (all, one) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (None, _) | (_, None) => None,
            (Some(true), Some(true)) => Some(true),
        })
        .flatten()
    }
}

/// Whether policy lets it pass: an answer says so, also one that says no. Silence is no proof, but what was told of is.
fn passes(outcome: Outcome, protocol: Protocol, verdicts: &[Verdict]) -> Option<bool> {
    let told = |verdict: &str| verdicts.iter().any(|it| it.flow.verdict == verdict);
    match outcome {
        Outcome::Answered | Outcome::Refused => Some(true),
        _ if told("denied") => Some(false),
        Outcome::Silent if protocol == Protocol::Udp && told("allowed") => Some(true),
        Outcome::Silent | Outcome::Unreachable | Outcome::Unsupported => None,
    }
}

/// Who probes: what it has learned of the cluster, and the containers that it has put into pods.
pub struct Prober {
    cluster: Cluster,
    places: Places,
    agents: Vec<Agent>,
    image: String,
    patience: Duration,
    requests: Duration,
    sessions: BTreeMap<Name, Arc<Session>>,
}

impl Prober {
    /// One that may reach a cluster, and whose containers are of that image (without, that of the agents). Connections
    /// may take so long.
    ///
    /// # Errors
    ///
    /// The agents cannot be looked for.
    pub async fn new(
        cluster: Cluster,
        selection: &Selection,
        image: Option<&str>,
        patience: Duration,
    ) -> Result<Self> {
        let agents = agents::find(&cluster, selection).await?;
        let of_agents = agents.iter().map(|agent| agent.image.as_str());
        let image = image.or(of_agents.into_iter().find(|image| !image.is_empty()));
        let image = image.unwrap_or(concat!("palisade:", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            places: Places::new(cluster.clone()),
            image: image.to_owned(),
            cluster,
            agents,
            patience,
            requests: Duration::from_secs(selection.request_timeout),
            sessions: BTreeMap::new(),
        })
    }

    /// Opens connections from a pod, and finds out what became of them.
    ///
    /// # Errors
    ///
    /// There is no such pod or target, or no container can be started in the pod.
    pub async fn probe(&mut self, from: &Name, goal: &Goal) -> Result<Report> {
        let pod = self.places.pod(from).await?;
        let session = self.session(from).await?;
        let addresses = match &goal.target {
            Target::Host(name) => self.resolve(&session, name).await?,
            Target::End(end) => self.places.addresses(end).await?,
        };
        let ports = match (&goal.port, &goal.target) {
            (Some(port), _) => vec![*port],
            (None, Target::End(End::Service(name))) => self.places.ports(name).await?,
            (None, _) => bail!("at which port of {} is not said", goal.target),
        };
        let same = |address: &&IpAddr| {
            let families = pod.addresses.iter().map(IpAddr::is_ipv4);
            families.into_iter().any(|four| four == address.is_ipv4())
        };
        let reachable: Vec<_> = addresses.iter().filter(same).copied().collect();
        ensure!(
            !reachable.is_empty(),
            "{} has no address of a family that {from} has",
            goal.target
        );
        let mut report = Report {
            from: from.to_string(),
            to: goal.to_string(),
            attempts: Vec::new(),
            unavailable: BTreeMap::new(),
        };
        for address in reachable {
            let nodes = self.places.nodes_behind(address).await?;
            for port in &ports {
                let target = SocketAddr::new(address, port.number);
                let attempt = self
                    .attempt(
                        &session,
                        &pod,
                        &nodes,
                        (target, port),
                        &mut report.unavailable,
                    )
                    .await?;
                report.attempts.push(attempt);
            }
        }
        Ok(report)
    }

    async fn attempt(
        &self,
        session: &Session,
        pod: &Pod,
        nodes: &BTreeSet<String>,
        (target, port): (SocketAddr, &Port),
        unavailable: &mut BTreeMap<String, String>,
    ) -> Result<Attempt> {
        let protocol: Protocol = port.protocol.into();
        let heard = |agent: &&Agent| agent.node == pod.node || nodes.contains(&agent.node);
        let agents: Vec<_> = self.agents.iter().filter(heard).cloned().collect();
        // From here on they tell of allowed flows, too; and these numbers are older.
        let before = self.flows(&agents, "1", unavailable).await;
        let newest: BTreeMap<_, _> = before
            .into_iter()
            .map(|(node, flows)| (node, flows.last().map_or(0, |flow| flow.number)))
            .collect();
        let task = Task::Probe { target, protocol };
        let answer = session.ask(task, self.patience).await?;
        let source_port = answer.local.map_or(0, |local| local.port());
        let mut verdicts = Vec::new();
        let silent = passes(answer.outcome, protocol, &[]).is_none();
        let more = MORE_LOOKS.iter().filter(|_| silent);
        for pause in LOOKS.iter().chain(more) {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            let told = self.flows(&agents, FLOWS, unavailable).await;
            verdicts = told
                .into_iter()
                .flat_map(|(node, flows)| flows.into_iter().map(move |flow| (node.clone(), flow)))
                .filter(|(node, flow)| {
                    newest.get(node).is_some_and(|newest| flow.number > *newest)
                        && flow.source_port == source_port
                        && flow.protocol == protocol.to_string()
                })
                .map(|(node, flow)| verdict(node, flow, target.ip()))
                .collect();
            if !verdicts.is_empty() {
                break;
            }
        }
        // Of what is said again and again, once.
        let kind = |it: &Verdict| {
            let Flow {
                verdict,
                direction,
                pod,
                ..
            } = &it.flow;
            (
                it.node.clone(),
                it.program,
                verdict.clone(),
                direction.clone(),
                pod.pod.clone(),
            )
        };
        let mut known = BTreeSet::new();
        verdicts.retain(|verdict| known.insert(kind(verdict)));
        verdicts.sort_by_key(|verdict| {
            (
                verdict.flow.direction != "egress",
                verdict.flow.time.clone(),
            )
        });
        Ok(Attempt {
            target,
            protocol,
            outcome: answer.outcome,
            took_ms: answer.took_ms,
            source_port,
            passes: passes(answer.outcome, protocol, &verdicts),
            verdicts,
        })
    }

    /// The last flows of some agents, who from then on tell of allowed ones, too.
    async fn flows(
        &self,
        agents: &[Agent],
        last: &str,
        unavailable: &mut BTreeMap<String, String>,
    ) -> BTreeMap<String, Vec<Flow>> {
        let command = ["flows", "-o", "json", "--allowed", "--last", last];
        let mut told = BTreeMap::new();
        for answer in agents::ask(&self.cluster, agents, &command, self.requests).await {
            match answer.flows() {
                Ok(flows) => {
                    told.insert(answer.node, flows);
                }
                Err(why) => {
                    unavailable.insert(answer.node, why);
                }
            }
        }
        told
    }

    async fn resolve(&self, session: &Session, name: &str) -> Result<Vec<IpAddr>> {
        let task = Task::Resolve {
            name: name.to_owned(),
        };
        let answer = session.ask(task, self.patience).await?;
        ensure!(
            !answer.addresses.is_empty(),
            "the pod cannot resolve {name}"
        );
        Ok(answer.addresses)
    }

    /// The conversation with the container in a pod; one for all that is tried from there.
    async fn session(&mut self, pod: &Name) -> Result<Arc<Session>> {
        if let Some(session) = self.sessions.get(pod) {
            return Ok(session.clone());
        }
        let session = visit::start(&self.cluster, pod, &self.image).await;
        let session = Arc::new(session.with_context(|| format!("in pod {pod}"))?);
        self.sessions.insert(pod.clone(), session.clone());
        Ok(session)
    }
}

/// Which program said it: an egress that was judged on another destination than was addressed was judged at the exit.
fn verdict(node: String, flow: Flow, addressed: IpAddr) -> Verdict {
    let program = match flow.direction.as_str() {
        "ingress" => "to_pod",
        _ if flow.destination == Some(addressed) => "from_pod",
        _ => "to_wire",
    };
    Verdict {
        node,
        program,
        flow,
    }
}

impl From<palisade_policy::model::Protocol> for Protocol {
    fn from(protocol: palisade_policy::model::Protocol) -> Self {
        use palisade_policy::model;
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
            model::Protocol::Sctp => Self::Sctp,
        }
    }
}

#[cfg(test)]
mod tests;
