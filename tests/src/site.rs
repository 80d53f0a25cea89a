//! Two nodes with agents, pods and a Service, and the policies that speak of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::{
    agent::Agent,
    lab::{Cni, Lab, Namespace, Plan, Service, ServicePort, both},
    manifest::Manifests,
    probe::{Attempt, Protocol, attempt},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

pub use self::objects::{
    block, both_ports, from_the_internet, kind, nothing, only_from, only_good, pod, policy,
    port_name, service,
};

mod objects;

/// How long an agent may take to start.
pub const READY: Duration = Duration::from_secs(60);
/// How long an answer may take, or a silence lasts.
pub const ANSWER: Duration = Duration::from_millis(400);
/// How long the world may take to become what it should be; what is wrong stays wrong.
pub const SETTLE: Duration = Duration::from_secs(60);
/// Of the network plugins.
pub const STYLES: [Cni; 2] = [Cni::Ptp, Cni::Bridge { netfilter: true }];
/// What everybody serves.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The Service's cluster address and its twin.
pub const VIP: [u8; 4] = [10, 96, 0, 10];
/// Its external one.
pub const EXTERNAL: [u8; 4] = [198, 51, 100, 10];
/// What a load balancer would have given it.
pub const BALANCER: [u8; 4] = [198, 51, 100, 20];
/// The host outside the cluster.
pub const INTERNET: [u8; 4] = [203, 0, 113, 7];
/// The Service's port.
pub const PORT: u16 = 80;
/// Its port on nodes.
pub const NODE_PORT: u16 = 30080;
/// The port of pods that serve.
pub const TARGET: u16 = 8080;

/// Each pod, and its node: a client between good and bad ones, its own node's and another's.
pub const PODS: [(&str, &str); 5] = [
    ("client", "node1"),
    ("near-good", "node1"),
    ("near-bad", "node1"),
    ("far-good", "node2"),
    ("far-bad", "node2"),
];

/// Two nodes with agents.
#[derive(Debug)]
pub struct Site {
    /// Its nodes and pods.
    pub lab: Lab,
    /// What the agents watch.
    pub manifests: Manifests,
    /// Those of the nodes, in their order.
    pub agents: Vec<Agent>,
}

/// Who answers there, or nobody.
pub type Expected<'a> = (&'a str, SocketAddr, Protocol, Option<&'a str>);

impl Site {
    /// On two nodes of its own.
    ///
    /// # Errors
    /// Where the lab or an agent does not start.
    pub fn new(cni: Cni) -> Result<Self> {
        Self::on(Lab::new(&Plan::of(2, cni))?)
    }

    /// On two nodes that are there.
    ///
    /// # Errors
    /// Where the lab or an agent does not start.
    pub fn on(lab: Lab) -> Result<Self> {
        let mut site = Self::without_agents(lab)?;
        site.start()?;
        Ok(site)
    }

    /// On two nodes that are there, and no agents yet.
    ///
    /// # Errors
    /// Where pods cannot be made.
    pub fn without_agents(mut lab: Lab) -> Result<Self> {
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        lab.add_outside("internet", &both(INTERNET.into()))?;
        manifests
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))?;
        for (name, node) in PODS {
            let full = format!("x/{name}");
            let addresses = lab.add_pod(&full, node)?.endpoint.addresses.clone();
            for protocol in PROTOCOLS {
                lab.serve(&full, TARGET, protocol)?;
            }
            manifests.apply(&pod(name, node, &addresses, kind(name)))?;
        }
        for protocol in PROTOCOLS {
            lab.serve("internet", TARGET, protocol)?;
        }
        Ok(Self {
            lab,
            manifests,
            agents: Vec::new(),
        })
    }

    /// Starts an agent on each node, and waits until they enforce.
    ///
    /// # Errors
    /// Where one does not start.
    pub fn start(&mut self) -> Result<()> {
        for node in ["node1", "node2"] {
            let program = Agent::program()?;
            let folder = self.manifests.folder();
            self.agents
                .push(Agent::start(&self.lab, node, &program, folder, &[])?);
        }
        for agent in &mut self.agents {
            agent.wait_until_ready(READY)?;
        }
        Ok(())
    }

    /// Gives a pod another role.
    ///
    /// # Errors
    /// Where there is no such pod.
    pub fn relabel(&mut self, name: &str, role: &str) -> Result<()> {
        let (_, node) = PODS.iter().find(|(it, _)| *it == name).context("a pod")?;
        let addresses = self
            .lab
            .pod(&format!("x/{name}"))
            .endpoint
            .addresses
            .clone();
        self.manifests.apply(&pod(name, node, &addresses, role))?;
        Ok(())
    }

    /// Translates the Service's addresses and node port to these pods, on every node. Its next port, which has no node
    /// port, leads to theirs: nobody serves that, but for a test's own server.
    ///
    /// # Errors
    /// Where nft refuses.
    pub fn translate(
        &mut self,
        backends: &[&str],
        change: impl Fn(Service) -> Service,
    ) -> Result<()> {
        let addresses: Vec<IpAddr> = backends
            .iter()
            .filter_map(|name| match *name {
                "internet" => self.lab.endpoint("internet"),
                name => Some(&self.lab.pod(&format!("x/{name}")).endpoint),
            })
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect();
        let port = |protocol, at: u16| ServicePort {
            port: PORT + at,
            protocol,
            node_port: (at == 0).then_some(NODE_PORT),
            backends: addresses
                .iter()
                .map(|&address| SocketAddr::new(address, TARGET + at))
                .collect(),
        };
        let ports = PROTOCOLS.map(|protocol| [port(protocol, 0), port(protocol, 1)]);
        let service = Service {
            name: "x/service".to_owned(),
            addresses: [both(VIP.into()), both(EXTERNAL.into())].concat(),
            ports: ports.concat(),
            ..Service::default()
        };
        self.lab.add_services(&[change(service)])
    }

    /// Tells the agents of the Service, or that there is none.
    ///
    /// # Errors
    /// Where the manifest cannot be written.
    pub fn tell(&mut self, known: bool) -> Result<()> {
        let service = service();
        if known {
            self.manifests.apply(&service)?;
        } else {
            self.manifests.delete(&service)?;
        }
        Ok(())
    }

    /// Where a pod or the host outside lives.
    ///
    /// # Errors
    /// Where there is no such.
    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        let endpoint = match name {
            "internet" => self.lab.endpoint(name),
            name => self.lab.endpoint(&format!("x/{name}")),
        };
        Ok(&endpoint.with_context(|| format!("no {name}"))?.namespace)
    }

    /// An address of a node.
    ///
    /// # Errors
    /// Where it has none of the family.
    pub fn node(&self, name: &str, family: u8) -> Result<IpAddr> {
        self.lab
            .node(name)
            .endpoint
            .address(family)
            .context("an address")
    }

    /// An address of a pod.
    ///
    /// # Errors
    /// Where it has none of the family.
    pub fn pod(&self, name: &str, family: u8) -> Result<IpAddr> {
        let endpoint = &self.lab.pod(&format!("x/{name}")).endpoint;
        endpoint.address(family).context("an address")
    }

    /// A socket of a pod.
    ///
    /// # Errors
    /// Where it cannot be bound.
    pub fn datagrams(&self, pod: &str, address: IpAddr, port: u16) -> Result<UdpSocket> {
        let socket = self
            .namespace(pod)?
            .run(|| UdpSocket::bind((address, port)))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(socket)
    }

    /// Who answers each of these: pods without their namespace.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn ask(&self, cases: &[Expected<'_>]) -> Result<Vec<Option<String>>> {
        self.ask_for(ANSWER, cases)
    }

    /// The same, with another patience for an answer.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn ask_for(
        &self,
        patience: Duration,
        cases: &[Expected<'_>],
    ) -> Result<Vec<Option<String>>> {
        let attempts = cases.iter().map(|&(from, to, protocol, _)| {
            Ok(Attempt {
                from: self.namespace(from)?,
                to,
                protocol,
                patience,
            })
        });
        let reports = attempt(&attempts.collect::<Result<Vec<_>>>()?)?;
        Ok(reports
            .iter()
            .map(|report| {
                let (server, _) = report.answer()?;
                Some(server.trim_start_matches("x/").to_owned())
            })
            .collect())
    }

    /// Waits until all of it is so, and looks once more whether it stays.
    ///
    /// # Errors
    /// Where something is otherwise.
    pub fn expect(&self, what: &str, cases: &[Expected<'_>]) -> Result<()> {
        let deadline = Instant::now() + SETTLE;
        let mut right = 0;
        while right < 2 {
            let answers = self.ask(cases)?;
            let mut wrong = cases
                .iter()
                .zip(&answers)
                .filter(|((_, _, _, expected), answer)| *expected != answer.as_deref());
            match wrong.next() {
                None => right += 1,
                Some(((from, to, protocol, expected), answer)) => {
                    ensure!(
                        Instant::now() < deadline,
                        "{what}: {from} -> {to}/{protocol} is answered by {answer:?}, not {expected:?}"
                    );
                    // Whom nothing may reach was reached after all had been right.
                    ensure!(
                        right == 0 || expected.is_some(),
                        "{what}: {from} -> {to}/{protocol} leaks to {answer:?}"
                    );
                }
            }
        }
        Ok(())
    }
}

/// The address that stands for all of the family.
#[must_use]
pub fn any(family: u8) -> IpAddr {
    if family == 4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// An IPv4 address or its twin.
#[must_use]
pub fn of_family(addresses: [u8; 4], family: u8) -> IpAddr {
    both(addresses.into())[usize::from(family == 6)]
}

/// From a pod to an address at a port, by TCP and UDP.
#[must_use]
pub fn by_both<'a>(
    from: &'a str,
    to: IpAddr,
    port: u16,
    expected: Option<&'a str>,
) -> [Expected<'a>; 2] {
    PROTOCOLS.map(|protocol| (from, SocketAddr::new(to, port), protocol, expected))
}
