//! A small cluster with real sockets: two nodes with an agent each, pods, Services, policies.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_dataplane::caps;
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan, Service, ServicePort, both},
    manifest::Manifests,
    probe::{Check, Connection, Expected, Patience, Protocol},
};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];
/// Name, node and label `app`.
const PODS: [(&str, &str, &str); 4] = [
    ("client", NODES[0], "client"),
    ("other", NODES[0], "other"),
    ("near", NODES[0], "server"),
    ("far", NODES[1], "server"),
];
/// Pods that have a Service of the same name.
const SERVICES: [&str; 2] = ["near", "far"];
/// What the pods serve.
const PORT: u16 = 8080;
/// What the Services serve.
const SERVICE_PORT: u16 = 80;
/// For a connection of its own.
const OTHER_PORT: u16 = 9001;
const READY: Duration = Duration::from_secs(120);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long there has to be none, at least.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a change may take.
const SETTLE: Duration = Duration::from_secs(30);

/// Returns how many checks held.
pub(crate) fn checks() -> Result<usize> {
    let mut count = 0;
    let mut strategies = vec!["clsact"];
    if caps::has_tcx()? {
        strategies.push("tcx");
    }
    for strategy in strategies {
        let mut site = Site::new(strategy)?;
        site.start()?;
        let told = site.story();
        if told.is_err() {
            println!("{}", site.logs());
        }
        count += told?;
        println!("a cluster by {strategy}: {count} checks so far");
    }
    let site = Site::new("auto")?;
    Ok(count + site.locked_memory()?)
}

struct Site {
    strategy: &'static str,
    agents: Vec<Agent>,
    manifests: Manifests,
    lab: Lab,
}

impl Site {
    fn new(strategy: &'static str) -> Result<Self> {
        let mut plan = Plan::of(2, Cni::Ptp);
        plan.nodes[1].cni = Cni::Bridge { netfilter: true };
        let mut lab = Lab::new(&plan)?;
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})];
        for (name, node, app) in PODS {
            let pod = lab.add_pod(&format!("x/{name}"), node)?;
            objects.push(pod_object(name, node, app, &pod.endpoint.addresses));
            lab.serve(&format!("x/{name}"), PORT, Protocol::Tcp)?;
        }
        for name in SERVICES {
            let backends = lab.pod(&format!("x/{name}")).endpoint.addresses.clone();
            let port = ServicePort {
                port: SERVICE_PORT,
                protocol: Protocol::Tcp,
                node_port: None,
                backends: backends.into_iter().map(|ip| (ip, PORT).into()).collect(),
            };
            lab.add_services(&[Service {
                name: name.to_owned(),
                addresses: service_addresses(name),
                ports: vec![port],
                ..Service::default()
            }])?;
            objects.push(service_object(name));
        }
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        manifests.sync(&objects)?;
        Ok(Self {
            strategy,
            agents: Vec::new(),
            manifests,
            lab,
        })
    }

    fn start(&mut self) -> Result<()> {
        let program = Agent::program()?;
        for node in NODES {
            let extra = ["--attach", self.strategy];
            let agent = Agent::start(&self.lab, node, &program, self.manifests.folder(), &extra)?;
            self.agents.push(agent);
        }
        for agent in &mut self.agents {
            agent.wait_until_ready(READY)?;
            ensure!(agent.status()?.attach == self.strategy, "{}", self.strategy);
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let logs = NODES.map(|node| {
            let log = fs::read_to_string(self.lab.path().join(format!("{node}.log")));
            format!("{node}:\n{}", log.unwrap_or_default())
        });
        logs.join("\n")
    }

    /// Policies come, hold while no agent runs, are taken over, change and go.
    fn story(&mut self) -> Result<usize> {
        let mut count = self.expect(&OPEN, false)?;
        for policy in policies() {
            self.manifests.apply(&policy)?;
        }
        count += self.expect(&CLOSED, true)?;

        let (client, far) = (self.lab.pod("x/client"), self.lab.pod("x/far"));
        let mut open = Connection::open(&client.endpoint, &far.endpoint, 4, OTHER_PORT, SETTLE)?;
        for mut agent in self.agents.drain(..) {
            agent.process().kill()?;
        }
        count += self.expect(&CLOSED, false)?;
        ensure!(open.works(SETTLE), "a connection without an agent");
        self.start()?;
        ensure!(open.works(SETTLE), "a connection under a new agent");
        count += self.expect(&CLOSED, false)?;

        self.manifests.apply(&only(&[]))?;
        let deadline = Instant::now() + SETTLE;
        while open.works(SILENCE) {
            ensure!(Instant::now() < deadline, "a connection that is denied now");
        }
        count += self.expect(&SHUT, false)?;
        for policy in policies() {
            self.manifests.delete(&policy)?;
        }
        // Three of the connection.
        Ok(count + 3 + self.expect(&OPEN, false)?)
    }

    /// Holds every pair against what is expected, by address and by Service, over both families at once. Denied
    /// pairs are waited for as long as it took the allowed ones to get through, for a guest can be slow.
    fn expect(&self, pairs: &[(&str, &str, bool)], confirm: bool) -> Result<usize> {
        let target = |name: &str, check: &Check| {
            let addresses = match check.port {
                SERVICE_PORT => service_addresses(name.strip_prefix("x/")?),
                _ => self.lab.endpoint(name)?.addresses.clone(),
            };
            let family = |address: &IpAddr| address.is_ipv4() == (check.family == 4);
            addresses.into_iter().find(family)
        };
        let (allowed, denied): (Vec<_>, Vec<_>) = pairs.iter().copied().partition(|pair| pair.2);
        let (allowed, denied) = (checks_of(&allowed), checks_of(&denied));
        let begun = Instant::now();
        let patience = Patience {
            answer: ANSWER,
            settle: SETTLE,
            confirm: false,
        };
        self.lab.expect_at(&allowed, patience, &target)?;
        let patience = Patience {
            answer: begun.elapsed().clamp(SILENCE, ANSWER),
            confirm,
            ..patience
        };
        self.lab.expect_at(&denied, patience, &target)?;
        let rows = allowed.iter().chain(&denied);
        Ok(rows
            .flat_map(|check| check.expected.values())
            .map(|row| row.len())
            .sum())
    }

    /// An agent that may not raise its limit of locked memory says so, on kernels that count maps and programs
    /// against it; on others it does not need to.
    fn locked_memory(&self) -> Result<usize> {
        if kernel()? >= (5, 11) {
            self.restricted()?.wait_until_ready(READY)?;
            return Ok(1);
        }
        self.refused()?;
        // What it finds pinned changes nothing: programs are counted, too.
        let program = Agent::program()?;
        let mut whole = Agent::start(&self.lab, NODES[0], &program, self.manifests.folder(), &[])?;
        whole.wait_until_ready(READY)?;
        whole.process().kill()?;
        fs::write(self.lab.path().join(format!("{}.log", NODES[0])), "")?;
        self.refused()?;
        Ok(2)
    }

    /// A restricted agent ends, and tells why.
    fn refused(&self) -> Result<()> {
        let mut agent = self.restricted()?;
        let ended = agent.process().wait(READY)?;
        let log = agent.process().log();
        ensure!(!ended.success(), "it runs with 64 KiB:\n{log}");
        for word in ["RLIMIT_MEMLOCK is 65536 bytes", "CAP_SYS_RESOURCE"] {
            ensure!(log.contains(word), "no {word} in\n{log}");
        }
        Ok(())
    }

    /// An agent without CAP_SYS_RESOURCE that may lock 64 KiB, which is what kernels grant of themselves.
    fn restricted(&self) -> Result<Agent> {
        let program = Agent::program()?;
        let node = &self.lab.node(NODES[0]).endpoint.namespace;
        let command = node.command_with_memlock(&program, 64 << 10);
        let folder = self.manifests.folder();
        Agent::start_as(&self.lab, NODES[0], command, &program, folder, &[])
    }
}

/// Major and minor number.
fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    caps::kernel_version(&release).with_context(|| format!("no version in {release:?}"))
}

/// Without policies.
const OPEN: [(&str, &str, bool); 9] = [
    ("client", "far", true),
    ("client", "near", true),
    ("client", "other", true),
    ("other", "far", true),
    ("other", "near", true),
    ("other", "client", true),
    ("far", "near", true),
    ("node:node1", "near", true),
    ("node:node1", "far", true),
];

/// With both of [`policies`].
const CLOSED: [(&str, &str, bool); 10] = [
    ("client", "far", true),
    ("client", "near", true),
    ("client", "other", false),
    ("other", "far", false),
    ("other", "near", false),
    ("other", "client", true),
    ("far", "near", false),
    // A pod's own node always reaches it; others are like anybody.
    ("node:node1", "near", true),
    ("node:node1", "far", false),
    ("node:node2", "far", true),
];

/// With servers that nobody may reach.
const SHUT: [(&str, &str, bool); 4] = [
    ("client", "far", false),
    ("client", "near", false),
    ("other", "far", false),
    ("other", "client", true),
];

/// By address, and by Service where there is one, over both families.
fn checks_of(pairs: &[(&str, &str, bool)]) -> Vec<Check> {
    let full = |name: &str| match name.starts_with("node:") {
        true => name.to_owned(),
        false => format!("x/{name}"),
    };
    let mut checks = Vec::new();
    for port in [PORT, SERVICE_PORT] {
        let mut expected = Expected::new();
        for (from, to, reaches) in pairs {
            if port == PORT || SERVICES.contains(to) {
                let row = expected.entry(full(from)).or_default();
                row.insert(full(to), *reaches);
            }
        }
        checks.extend([4, 6].map(|family| Check {
            port,
            protocol: Protocol::Tcp,
            family,
            expected: expected.clone(),
        }));
    }
    checks
}

fn policies() -> [Value; 2] {
    let servers = json!({"podSelector": {"matchLabels": {"app": "server"}}});
    let egress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "of-the-client", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [servers]}],
        },
    });
    [only(&["client"]), egress]
}

/// Lets only pods with these labels reach the servers, at two ports.
fn only(apps: &[&str]) -> Value {
    let ports = json!([{"port": PORT}, {"port": OTHER_PORT}]);
    let rules: Vec<_> = apps
        .iter()
        .map(|app| {
            let from = json!([{"podSelector": {"matchLabels": {"app": app}}}]);
            json!({"from": from, "ports": ports})
        })
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "of-the-servers", "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": rules},
    })
}

fn pod_object(name: &str, node: &str, app: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "uid": format!("uid-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

fn service_object(name: &str) -> Value {
    let addresses = service_addresses(name);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {
            "clusterIP": addresses[0], "clusterIPs": addresses,
            "ports": [{"port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    })
}

fn service_addresses(name: &str) -> Vec<IpAddr> {
    let last = if name == "near" { 10 } else { 11 };
    both([10, 96, 0, last].into()).to_vec()
}
