//! What the watch costs: memory and time of an agent to which a server tells of a large cluster, and how long it takes
//! from the server's answer to the packet. `cargo run --release --package palisade-tests --bin watch-bench`, as root.

use std::{
    fs,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    control_plane::Fake,
    lab::{Cni, Lab, Plan},
    probe::{Attempt, Outcome, Protocol, attempt},
};
use serde_json::{Value, json};

const NODE: &str = "node1";
const PORT: u16 = 8080;
const NAMESPACES: usize = 1_000;
const PODS: usize = 100_000;
const POLICIES: usize = 10_000;
/// Pods to a node.
const DENSITY: usize = 100;
/// Changes of which each is timed.
const CHANGES: u64 = 100;
/// For how long a probe waits: they follow each other so closely.
const PROBE: Duration = Duration::from_millis(2);
/// For how long nothing passes once all is closed.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a change takes at most.
const SLOWEST: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    for name in ["x/client", "x/server"] {
        lab.add_pod(name, NODE)?;
        lab.serve(name, PORT, Protocol::Tcp)?;
    }
    let fake = Fake::start(&lab.node(NODE).endpoint.namespace)?;
    let kubeconfig = lab.path().join("kubeconfig");
    fake.kubeconfig(&kubeconfig)?;
    let mut own = Vec::new();
    for name in ["client", "server"] {
        let address = lab.pod(&format!("x/{name}")).endpoint.address(4);
        let address = address.context("IPv4")?.to_string();
        own.push(pod("x", name, NODE, &address, name, 1));
    }
    fake.list("pods", 1_000_000, &own);
    fake.list("networkpolicies", 1_000_000, &[open(1)]);
    fake.list("namespaces", 1_000_000, &[]);
    fake.list("services", 1_000_000, &[]);
    fake.stream("namespaces", NAMESPACES, |at| {
        let (name, version, team) = (namespace_of(at), at + 1, at % 50);
        json!({"metadata": {
            "name": name, "resourceVersion": version.to_string(), "labels": {"team": format!("t{team}")},
        }})
        .to_string()
    });
    fake.stream("pods", PODS, |at| {
        // Rendered once, for rendering would be most of the time.
        static POD: LazyLock<String> =
            LazyLock::new(|| pod("@NS", "@NAME", "@NODE", "@IP", "@APP", 1).to_string());
        let app = format!("app{}", at / NAMESPACES % 20);
        POD.replace("@NS", &namespace_of(at))
            .replace("@NAME", &format!("{app}-7c9d8f6b5d-{at:05}"))
            .replace("@NODE", &format!("node-{}", at / DENSITY))
            .replace(
                "@IP",
                &format!("10.{}.{}.{}", 128 + at / 65_536, at / 256 % 256, at % 256),
            )
            .replace("@APP", &app)
            .replace(
                r#""resourceVersion":"1""#,
                &format!(r#""resourceVersion":"{}""#, at + 10),
            )
    });
    fake.stream("networkpolicies", POLICIES, |at| policy(at).to_string());
    let size = pod("namespace", "name", "node", "10.0.0.1", "app", 1)
        .to_string()
        .len();
    println!("{PODS} pods of {size} bytes, {POLICIES} policies, {NAMESPACES} namespaces");

    let begun = Instant::now();
    let program = Agent::program()?;
    let mut agent = Agent::start_watching(&lab, NODE, &program, &kubeconfig, &[])?;
    agent.wait_until_ready(PATIENCE)?;
    println!("ready after {:?}", begun.elapsed());
    let pid = agent.process().pid();
    tell_cost(pid)?;

    let probe = |patience| -> Result<bool> {
        let attempts = [Attempt {
            from: &lab.pod("x/client").endpoint.namespace,
            to: SocketAddr::new(
                lab.pod("x/server").endpoint.address(4).context("IPv4")?,
                PORT,
            ),
            protocol: Protocol::Tcp,
            patience,
        }];
        Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
    };
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let version = 2_000_000 + 2 * change;
        fake.tell("networkpolicies", "MODIFIED", &shut(version));
        // Only an answer is sure: a probe may be silent for other reasons, so silence has to last.
        while probe(SILENCE)? {}
        fake.tell("networkpolicies", "MODIFIED", &open(version + 1));
        let told = Instant::now();
        while !probe(PROBE)? {
            ensure!(told.elapsed() < SLOWEST, "nothing opens");
        }
        times.push(told.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "from the answer to the packet: median {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    tell_cost(pid)
}

fn tell_cost(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in status.lines() {
        if ["VmHWM", "VmRSS", "RssAnon"]
            .iter()
            .any(|name| line.starts_with(name))
        {
            println!("{line}");
        }
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    // A tick is a hundredth of a second (`USER_HZ`).
    let (user, system) = (ticks(11).context("utime")?, ticks(12).context("stime")?);
    println!("CPU: {} s user, {} s system", user / 100.0, system / 100.0);
    Ok(())
}

fn namespace_of(at: usize) -> String {
    format!("namespace-{}", at % NAMESPACES)
}

/// A pod as an API server sends it, with all that nobody here reads.
fn pod(namespace: &str, name: &str, node: &str, address: &str, app: &str, version: usize) -> Value {
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
        "f:ownerReferences": {".": {}, "k:{\"uid\":\"e2b2a0e4-6c1f-4f0e-9f38-0b5a1a6e4a11\"}": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:env": {}, "f:image": {},
        "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {}, "f:resources": {}, "f:volumeMounts": {}}},
        "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
        "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}});
    let condition = |of: &str| {
        json!({"type": of, "status": "True", "lastProbeTime": null,
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let variables: Vec<_> = (0..12)
        .map(
            |at| json!({"name": format!("SETTING_{at}"), "value": format!("value-{at}-of-{name}")}),
        )
        .collect();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "generateName": "app-7c9d8f6b5d-", "namespace": namespace,
            "uid": format!("e2b2a0e4-6c1f-4f0e-9f38-{version:012x}"),
            "resourceVersion": version.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": app, "pod-template-hash": "7c9d8f6b5d", "tier": "backend"},
            "annotations": {"example.com/checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-7c9d8f6b5d",
                "uid": "e2b2a0e4-6c1f-4f0e-9f38-0b5a1a6e4a11", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
                    "subresource": "status"},
            ],
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "default", "restartPolicy": "Always",
            "containers": [{
                "name": "main", "image": "registry.example/app:1.2.3", "env": variables,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m"}},
                "volumeMounts": [{"name": "kube-api-access", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent",
            }],
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ], "defaultMode": 420}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "172.18.0.2",
            "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "started": true,
                "image": "registry.example/app:1.2.3",
                "imageID": "registry.example/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "containerID": "containerd://9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}}],
        },
    })
}

/// One of the many policies.
fn policy(at: usize) -> Value {
    let app = format!("app{}", at / NAMESPACES);
    json!({
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": format!("policy-{at}"), "namespace": namespace_of(at),
            "uid": format!("e2b2a0e4-6c1f-4f0e-9f38-{at:012x}"), "resourceVersion": (at + 1).to_string()},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"tier": "backend"}}},
                    {"namespaceSelector": {"matchLabels": {"team": format!("t{}", at % 50)}}}],
                    "ports": [{"protocol": "TCP", "port": "http"}]},
                {"from": [{"ipBlock": {"cidr": format!("192.{}.{}.0/24", at / 256 % 256, at % 256)}}]},
            ],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]}],
        },
    })
}

/// Lets the client reach the server.
fn open(version: u64) -> Value {
    own(
        version,
        &json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]),
    )
}

/// Lets nobody.
fn shut(version: u64) -> Value {
    own(version, &json!([]))
}

fn own(version: u64, ingress: &Value) -> Value {
    json!({
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "p", "namespace": "x", "uid": "1", "resourceVersion": version.to_string()},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    })
}
