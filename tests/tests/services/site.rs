//! Two nodes with agents, pods and a Service, and the policies that speak of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Namespace, Plan, Service, ServicePort, both},
    manifest::Manifests,
    probe::{Attempt, Protocol, attempt},
};
use serde_json::{Value, json};

pub(crate) const READY: Duration = Duration::from_secs(30);
/// How long an answer may take, or a silence lasts.
pub(crate) const ANSWER: Duration = Duration::from_millis(400);
/// How long the world may take to become what it should be; what is wrong stays wrong.
pub(crate) const SETTLE: Duration = Duration::from_secs(20);
pub(crate) const STYLES: [Cni; 2] = [Cni::Ptp, Cni::Bridge { netfilter: true }];
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

pub(crate) const VIP: [u8; 4] = [10, 96, 0, 10];
pub(crate) const EXTERNAL: [u8; 4] = [198, 51, 100, 10];
pub(crate) const INTERNET: [u8; 4] = [203, 0, 113, 7];
/// Of Services, of nodes, and of the pods that serve.
pub(crate) const PORT: u16 = 80;
pub(crate) const NODE_PORT: u16 = 30080;
pub(crate) const TARGET: u16 = 8080;

/// Each pod, and its node: a client between good and bad ones, its own node's and another's.
pub(crate) const PODS: [(&str, &str); 5] = [
    ("client", "node1"),
    ("near-good", "node1"),
    ("near-bad", "node1"),
    ("far-good", "node2"),
    ("far-bad", "node2"),
];

/// Two nodes with agents.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) manifests: Manifests,
    /// They end with it.
    _agents: Vec<Agent>,
}

/// Who answers there, or nobody.
pub(crate) type Expected<'a> = (&'a str, SocketAddr, Protocol, Option<&'a str>);

impl Site {
    pub(crate) fn new(cni: Cni) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(2, cni))?;
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
        let mut agents = Vec::new();
        for node in ["node1", "node2"] {
            let program = Agent::program()?;
            agents.push(Agent::start(&lab, node, &program, manifests.folder(), &[])?);
        }
        for agent in &mut agents {
            agent.wait_until_ready(READY)?;
        }
        Ok(Self {
            lab,
            manifests,
            _agents: agents,
        })
    }

    /// Gives a pod another role.
    pub(crate) fn relabel(&mut self, name: &str, role: &str) -> Result<()> {
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
    pub(crate) fn translate(
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
    pub(crate) fn tell(&mut self, known: bool) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "service", "namespace": "x"},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": both(VIP.into())[0], "clusterIPs": both(VIP.into()),
                "externalIPs": both(EXTERNAL.into()),
                "ports": PROTOCOLS.map(|protocol| json!({
                    "name": protocol.to_string().to_lowercase(), "protocol": protocol.to_string(),
                    "port": PORT, "targetPort": TARGET, "nodePort": NODE_PORT,
                })),
            },
        });
        if known {
            self.manifests.apply(&service)?;
        } else {
            self.manifests.delete(&service)?;
        }
        Ok(())
    }

    pub(crate) fn namespace(&self, name: &str) -> Result<&Namespace> {
        let endpoint = match name {
            "internet" => self.lab.endpoint(name),
            name => self.lab.endpoint(&format!("x/{name}")),
        };
        Ok(&endpoint.with_context(|| format!("no {name}"))?.namespace)
    }

    pub(crate) fn node(&self, name: &str, family: u8) -> Result<IpAddr> {
        self.lab
            .node(name)
            .endpoint
            .address(family)
            .context("an address")
    }

    pub(crate) fn pod(&self, name: &str, family: u8) -> Result<IpAddr> {
        let endpoint = &self.lab.pod(&format!("x/{name}")).endpoint;
        endpoint.address(family).context("an address")
    }

    /// A socket of a pod.
    pub(crate) fn datagrams(&self, pod: &str, address: IpAddr, port: u16) -> Result<UdpSocket> {
        let socket = self
            .namespace(pod)?
            .run(|| UdpSocket::bind((address, port)))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(socket)
    }

    /// Who answers each of these: pods without their namespace.
    pub(crate) fn ask(&self, cases: &[Expected<'_>]) -> Result<Vec<Option<String>>> {
        let attempts = cases.iter().map(|&(from, to, protocol, _)| {
            Ok(Attempt {
                from: self.namespace(from)?,
                to,
                protocol,
                patience: ANSWER,
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
    pub(crate) fn expect(&self, what: &str, cases: &[Expected<'_>]) -> Result<()> {
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

/// What a pod is labelled with, by its name.
pub(crate) fn kind(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

pub(crate) fn pod(name: &str, node: &str, addresses: &[IpAddr], role: &str) -> Value {
    let addresses = addresses.iter().map(|ip| json!({"ip": ip}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "x", "uid": format!("uid-{name}"),
            "labels": {"app": name, "role": role},
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": addresses.collect::<Vec<_>>()},
    })
}

pub(crate) fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"}, "spec": spec,
    })
}

/// The client may speak with good pods at their own port, and with nobody else.
pub(crate) fn only_good() -> Value {
    let ports = PROTOCOLS.map(|protocol| json!({"port": TARGET, "protocol": protocol.to_string()}));
    policy(
        "only-good",
        json!({
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"role": "good"}}}], "ports": ports}],
        }),
    )
}

/// The same, and at the next port too.
pub(crate) fn both_ports() -> Value {
    let mut policy = only_good();
    policy["spec"]["egress"][0]["ports"] = PROTOCOLS
        .map(|protocol| json!({"port": TARGET, "endPort": TARGET + 1, "protocol": protocol.to_string()}))
        .into();
    policy
}

/// A pod takes connections of pods of a role alone.
pub(crate) fn only_from(server: &str, role: &str) -> Value {
    policy(
        "only-from",
        json!({
            "podSelector": {"matchLabels": {"app": server}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": role}}}]}],
        }),
    )
}

/// Nothing but answers passes in this direction.
pub(crate) fn nothing(pod: &str, direction: &str) -> Value {
    policy(
        &format!("nothing-{}", direction.to_lowercase()),
        json!({"podSelector": {"matchLabels": {"app": pod}}, "policyTypes": [direction]}),
    )
}

pub(crate) fn any(family: u8) -> IpAddr {
    if family == 4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

pub(crate) fn of_family(addresses: [u8; 4], family: u8) -> IpAddr {
    both(addresses.into())[usize::from(family == 6)]
}

/// From a pod to an address at a port, by TCP and UDP.
pub(crate) fn by_both<'a>(
    from: &'a str,
    to: IpAddr,
    port: u16,
    expected: Option<&'a str>,
) -> [Expected<'a>; 2] {
    PROTOCOLS.map(|protocol| (from, SocketAddr::new(to, port), protocol, expected))
}
