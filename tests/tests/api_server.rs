//! The agent at an API server, the real one and one that misbehaves: what is made, changed and deleted there passes and
//! cuts real packets here, whatever becomes of the connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    control_plane::{ControlPlane, Fake, Objects, Relay, skip_without_assets, versioned},
    lab::{Cni, Lab, Plan},
    probe::{Attempt, Outcome, Protocol, attempt},
    skip_without_root,
};
use serde_json::{Value, json};

const NODE: &str = "node1";
const READY: Duration = Duration::from_secs(60);
/// How long a change may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// Within what time a dead connection is noticed.
const NOTICED: Duration = Duration::from_secs(65);
/// How long until it is tried again at the latest, and a little.
const AGAIN: Duration = Duration::from_secs(75);
/// How long until a problem that stands is said on the policy.
const SAID: Duration = Duration::from_secs(80);
/// How long an answer may take, or a silence lasts.
const ANSWER: Duration = Duration::from_millis(300);
const PORT: u16 = 8080;
const PODS: [&str; 3] = ["client", "server", "other"];

/// A node with pods `x/client`, `x/server` and `x/other`, and an agent that watches.
struct Site {
    agent: Agent,
    lab: Lab,
}

fn lab() -> Result<Lab> {
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    for name in PODS {
        lab.add_pod(&format!("x/{name}"), NODE)?;
        lab.serve(&format!("x/{name}"), PORT, Protocol::Tcp)?;
    }
    Ok(lab)
}

impl Site {
    /// The objects of the lab at a real API server, and a relay on the way there.
    fn at(control_plane: &ControlPlane, objects: &mut Objects<'_>) -> Result<(Self, Relay)> {
        let lab = lab()?;
        for object in objects_of(&lab) {
            objects.apply(&object)?;
        }
        let node = &lab.node(NODE).endpoint.namespace;
        let relay = Relay::start(node, control_plane.address())?;
        let kubeconfig = lab.path().join("kubeconfig");
        control_plane.kubeconfig(relay.address(), &kubeconfig)?;
        let mut site = Self::start(lab, &kubeconfig)?;
        site.agent.wait_until_ready(READY)?;
        Ok((site, relay))
    }

    fn start(lab: Lab, kubeconfig: &Path) -> Result<Self> {
        let program = Agent::program()?;
        let extra = ["--log", "palisade=debug,info"];
        let agent = Agent::start_watching(&lab, NODE, &program, kubeconfig, &extra)?;
        Ok(Self { agent, lab })
    }

    /// Whether a connection from one pod to another stands.
    fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        let to = &self.lab.pod(&format!("x/{to}")).endpoint;
        let attempts = [Attempt {
            from: &self.lab.pod(&format!("x/{from}")).endpoint.namespace,
            to: SocketAddr::new(to.address(4).context("IPv4")?, PORT),
            protocol: Protocol::Tcp,
            patience: ANSWER,
        }];
        Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
    }

    /// Waits until connections to the server stand, or none does.
    fn expect_within(&mut self, from: &str, expected: bool, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while self.reaches(from, "server")? != expected {
            let log = self.agent.process();
            ensure!(
                Instant::now() < deadline,
                "{from} -> server is not {expected}\n{}",
                log.log()
            );
        }
        Ok(())
    }

    fn expect(&mut self, from: &str, expected: bool) -> Result<()> {
        self.expect_within(from, expected, SOON)
    }

    /// A metric's value.
    fn metric(&self, name: &str) -> Result<f64> {
        let namespace = &self.lab.node(NODE).endpoint.namespace;
        let mut stream = namespace.run(|| TcpStream::connect(("127.0.0.1", 9464)))?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }
}

/// All objects of a lab, without a policy.
fn objects_of(lab: &Lab) -> Vec<Value> {
    let pods = PODS.map(|name| pod(lab, name, json!({"app": name})));
    let mut objects = vec![namespace("x", json!({}))];
    objects.extend(pods);
    objects
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn pod(lab: &Lab, name: &str, labels: Value) -> Value {
    let addresses = &lab.pod(&format!("x/{name}")).endpoint.addresses;
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": labels},
        "spec": {"nodeName": NODE, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": addresses[0]["ip"], "podIPs": addresses},
    })
}

/// A policy of `x` that lets the peers reach the server.
fn policy(name: &str, ingress: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    })
}

fn from_label(key: &str, value: &str) -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {key: value}}}]}])
}

fn skip() -> bool {
    skip_without_root() || skip_without_assets()
}

#[test]
fn what_is_made_changed_and_deleted_there_cuts_and_passes_packets_here() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let (mut site, _relay) = Site::at(&control_plane, &mut objects)?;
    site.expect("client", true)?;
    // Made.
    let closed = policy("p", json!([]));
    objects.apply(&closed)?;
    site.expect("client", false)?;
    // Changed.
    objects.apply(&policy("p", from_label("app", "client")))?;
    site.expect("client", true)?;
    site.expect("other", false)?;
    // A pod's labels.
    objects.apply(&pod(&site.lab, "client", json!({"app": "former"})))?;
    site.expect("client", false)?;
    objects.apply(&pod(&site.lab, "other", json!({"app": "client"})))?;
    site.expect("other", true)?;
    // A namespace's labels.
    let peers = json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]);
    objects.apply(&policy("p", peers))?;
    site.expect("client", false)?;
    objects.apply(&namespace("x", json!({"team": "a"})))?;
    site.expect("client", true)?;
    objects.apply(&namespace("x", json!({})))?;
    site.expect("client", false)?;
    // Deleted.
    objects.delete(&closed)?;
    site.expect("client", true)
}

#[test]
fn what_went_while_nobody_watched_goes_with_the_next_list_and_the_last_state_stays_until_then()
-> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let (mut site, relay) = Site::at(&control_plane, &mut objects)?;
    objects.apply(&policy("closed", json!([])))?;
    site.expect("client", false)?;
    let before = site.metric("palisade_watch_lists_total{kind=\"NetworkPolicy\"}")?;
    // Nothing gets through, and meanwhile a policy goes, another comes, and a peer changes its labels.
    relay.stall(true);
    relay.cut();
    let reason = site.agent.wait_for_source(false, SOON)?;
    assert!(reason.contains("cannot be watched"), "{reason}");
    objects.delete(&policy("closed", json!([])))?;
    objects.apply(&policy("open", from_label("app", "client")))?;
    objects.apply(&pod(&site.lab, "other", json!({"app": "client"})))?;
    objects.apply(&pod(&site.lab, "client", json!({"app": "former"})))?;
    // A server that has just started cannot tell what happened before.
    control_plane.kill_server()?;
    control_plane.start_server()?;
    control_plane.compact()?;
    site.expect("other", false)?;
    relay.stall(false);
    relay.cut();
    site.expect_within("other", true, AGAIN)?;
    site.expect("client", false)?;
    site.agent.wait_for_source(true, AGAIN)?;
    let after = site.metric("palisade_watch_lists_total{kind=\"NetworkPolicy\"}")?;
    assert!(after > before, "listed {before} times, then {after}");
    assert!(site.metric("palisade_watch_errors_total{kind=\"NetworkPolicy\"}")? > 0.0);
    Ok(())
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_watched_again() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let (mut site, _relay) = Site::at(&control_plane, &mut objects)?;
    let closed = policy("p", json!([]));
    objects.apply(&closed)?;
    site.expect("client", false)?;
    control_plane.kill_server()?;
    site.agent.wait_for_source(false, SOON)?;
    site.expect("client", false)?;
    control_plane.start_server()?;
    site.agent.wait_for_source(true, AGAIN)?;
    Objects::new(&control_plane).delete(&closed)?;
    site.expect("client", true)
}

#[test]
fn what_a_restored_store_says_holds_though_its_versions_are_older() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let (mut site, _relay) = Site::at(&control_plane, &mut objects)?;
    let closed = policy("p", json!([]));
    objects.apply(&closed)?;
    site.expect("client", false)?;
    control_plane.back_up()?;
    site.agent.wait_for_source(true, AGAIN)?;
    // Much passes, and is forgotten: more than a server that starts writes by itself.
    let mut objects = Objects::new(&control_plane);
    objects.delete(&closed)?;
    for number in 0..1000 {
        let number = number.to_string();
        objects.apply(&pod(
            &site.lab,
            "other",
            json!({"app": "other", "number": number}),
        ))?;
    }
    site.expect("client", true)?;
    control_plane.restore()?;
    site.expect_within("client", false, AGAIN)?;
    // And it goes on from there.
    Objects::new(&control_plane).delete(&closed)?;
    site.expect("client", true)
}

#[test]
fn a_connection_that_stalls_is_noticed_in_time() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let (mut site, relay) = Site::at(&control_plane, &mut objects)?;
    site.expect("client", true)?;
    let (begun, taken) = (Instant::now(), relay.accepted());
    relay.stall(true);
    objects.apply(&policy("p", json!([])))?;
    site.agent.wait_for_source(false, NOTICED)?;
    println!("noticed after {:?}", begun.elapsed());
    // The stalled connection stays as it is; a new one goes through.
    relay.stall(false);
    site.expect_within("client", false, AGAIN)?;
    println!("told after {:?}", begun.elapsed());
    assert!(relay.accepted() > taken);
    Ok(())
}

/// Those on objects of the namespace.
fn events(control_plane: &ControlPlane) -> Result<Vec<Value>> {
    let path = "/apis/events.k8s.io/v1/namespaces/x/events";
    let request = hyper::Request::get(path).body(Vec::new())?;
    let list = control_plane.run(|client| async move { client.request::<Value>(request).await })?;
    Ok(list["items"].as_array().context("items")?.clone())
}

#[test]
fn what_finds_no_room_is_said_on_its_object_and_the_agent_is_not_ready() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    objects.apply(&namespace("x", json!({})))?;
    let lab = lab()?;
    let mut server = pod(&lab, "server", json!({"app": "server"}));
    server["spec"]["nodeName"] = json!(NODE);
    objects.apply(&server)?;
    let node = &lab.node(NODE).endpoint.namespace;
    let relay = Relay::start(node, control_plane.address())?;
    let kubeconfig = lab.path().join("kubeconfig");
    control_plane.kubeconfig(relay.address(), &kubeconfig)?;
    let small = ["--map-entries", "peers_v4=8,cidrs_v4=8"];
    let mut agent = Agent::start_watching(&lab, NODE, &Agent::program()?, &kubeconfig, &small)?;
    agent.wait_until_ready(READY)?;
    let mut uids = Vec::new();
    for number in 0..12 {
        let name = format!("far-{number}");
        let mut far = server.clone();
        far["metadata"] = json!({"name": name, "namespace": "x", "labels": {"app": name}});
        far["spec"]["nodeName"] = json!("elsewhere");
        far["status"]["podIP"] = json!(format!("10.250.1.{number}"));
        far["status"]["podIPs"] = json!([{"ip": format!("10.250.1.{number}")}]);
        objects.apply(&far)?;
        uids.push(name);
    }
    let blocks: Vec<_> = (0..12)
        .map(|number| json!({"ipBlock": {"cidr": format!("198.51.{number}.0/24")}}))
        .collect();
    objects.apply(&policy("blocks", json!([{"from": blocks}])))?;
    let peers: Vec<_> = (0..12)
        .map(|number| json!({"podSelector": {"matchLabels": {"app": format!("far-{number}")}}}))
        .collect();
    objects.apply(&policy("peers", json!([{"from": peers}])))?;
    let said = |kind: &str, reason: &str| -> Result<bool> {
        let events = events(&control_plane)?;
        let of = |event: &&Value| {
            event["regarding"]["kind"] == kind
                && event["reason"] == reason
                && event["regarding"]["uid"].is_string()
        };
        Ok(events.iter().any(|event| of(&event)))
    };
    let deadline = Instant::now() + SAID;
    for (kind, reason) in [("NetworkPolicy", "PolicyDoesNotFit"), ("Pod", "DoesNotFit")] {
        while !said(kind, reason)? {
            let (log, status) = (agent.process().log(), agent.status()?);
            ensure!(
                Instant::now() < deadline,
                "{kind}: {:#?}\n{status:#?}\n{log}",
                events(&control_plane)?
            );
            thread::sleep(Duration::from_millis(500));
        }
    }
    let status = agent.status()?;
    let enforcement = status.conditions.iter().find(|it| it.name == "enforcement");
    let enforcement = enforcement.context("no condition")?;
    let reason = enforcement.reason.clone().unwrap_or_default();
    println!("{reason}");
    ensure!(!status.healthy && !enforcement.ok, "{status:#?}");
    ensure!(reason.contains("no room in the maps"), "{reason}");
    for name in ["blocks", "peers"] {
        objects.delete(&policy(name, json!([])))?;
    }
    for name in uids {
        let mut far = server.clone();
        far["metadata"] = json!({"name": name, "namespace": "x"});
        objects.delete(&far)?;
    }
    agent.wait_until_ready(READY)
}

#[test]
fn what_is_wrong_with_a_policy_is_said_on_it_once_by_all_nodes_together() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    objects.apply(&namespace("x", json!({})))?;
    let mut lab = Lab::new(&Plan::of(2, Cni::Ptp))?;
    let (program, mut agents, mut relays) = (Agent::program()?, Vec::new(), Vec::new());
    for (name, node) in [("client", "node1"), ("server", "node2")] {
        lab.add_pod(&format!("x/{name}"), node)?;
        let mut pod = pod(&lab, name, json!({"app": "server"}));
        pod["spec"]["nodeName"] = json!(node);
        objects.apply(&pod)?;
        let namespace = &lab.node(node).endpoint.namespace;
        let relay = Relay::start(namespace, control_plane.address())?;
        let kubeconfig = lab.path().join(format!("{node}.kubeconfig"));
        control_plane.kubeconfig(relay.address(), &kubeconfig)?;
        relays.push(relay);
        let agent = Agent::start_watching(&lab, node, &program, &kubeconfig, &[])?;
        agents.push(agent);
    }
    for agent in &mut agents {
        agent.wait_until_ready(READY)?;
    }
    objects.apply(&policy(
        "p",
        json!([{"ports": [{"port": "nobody-has-it"}]}]),
    ))?;
    let events = || events(&control_plane);
    let deadline = Instant::now() + SAID;
    while events()?.is_empty() {
        let logs = agents.iter_mut().map(|agent| agent.process().log());
        ensure!(Instant::now() < deadline, "{}", logs.collect::<String>());
        thread::sleep(Duration::from_millis(500));
    }
    // By then the other has seen it as well.
    thread::sleep(SAID / 2);
    let events = events()?;
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!(event["reason"], "UnknownPort");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["regarding"]["kind"], "NetworkPolicy");
    assert_eq!(event["regarding"]["name"], "p");
    assert!(event["regarding"]["uid"].is_string());
    let note = event["note"].as_str().context("a note")?;
    assert!(note.contains("nobody-has-it"), "{note}");
    Ok(())
}

#[test]
fn a_server_that_misbehaves_does_no_harm() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let lab = lab()?;
    let fake = Fake::start(&lab.node(NODE).endpoint.namespace)?;
    let kubeconfig = lab.path().join("kubeconfig");
    fake.kubeconfig(&kubeconfig)?;
    let pods = |label: &dyn Fn(&str) -> Value, version| {
        let pods = PODS.map(|name| versioned(&pod(&lab, name, label(name)), version));
        pods.to_vec()
    };
    let plain: &dyn Fn(&str) -> Value = &|name| json!({"app": name});
    let (listed, client) = (
        pods(plain, 10),
        pod(&lab, "client", json!({"app": "client"})),
    );
    let stranger = pod(&lab, "client", json!({"app": "stranger"}));
    fake.list(
        "namespaces",
        10,
        &[versioned(&namespace("x", json!({})), 5)],
    );
    fake.list("pods", 10, &listed);
    let closed = versioned(&policy("closed", json!([])), 7);
    fake.list("networkpolicies", 10, std::slice::from_ref(&closed));
    // Three kinds are listed, one is not: nothing is applied.
    fake.refuse("services", Some(500));
    let mut site = Site::start(lab, &kubeconfig)?;
    thread::sleep(Duration::from_secs(2));
    assert!(
        site.reaches("client", "server")?,
        "applied before all was told"
    );
    fake.refuse("services", None);
    site.agent.wait_until_ready(READY)?;
    site.expect("client", false)?;
    fake.wait_until_watched(SOON)?;
    // An event that comes late, from before the list.
    fake.tell("networkpolicies", "DELETED", &versioned(&closed, 9));
    // In order.
    let open = policy("closed", from_label("app", "client"));
    fake.tell("networkpolicies", "MODIFIED", &versioned(&open, 20));
    site.expect("client", true)?;
    // Out of order, and twice: the newest holds.
    fake.tell("networkpolicies", "MODIFIED", &versioned(&closed, 19));
    fake.tell("networkpolicies", "MODIFIED", &versioned(&open, 20));
    fake.tell("networkpolicies", "DELETED", &versioned(&closed, 15));
    fake.tell("pods", "MODIFIED", &versioned(&stranger, 31));
    site.expect("client", false)?;
    fake.tell("pods", "MODIFIED", &versioned(&client, 30));
    fake.tell("pods", "MODIFIED", &versioned(&stranger, 31));
    thread::sleep(Duration::from_secs(1));
    site.expect("client", false)?;
    fake.tell("pods", "MODIFIED", &versioned(&client, 32));
    site.expect("client", true)?;
    // What is gone does not come back by a late event.
    fake.tell("networkpolicies", "DELETED", &versioned(&open, 40));
    site.expect("other", true)?;
    fake.tell("networkpolicies", "MODIFIED", &versioned(&closed, 39));
    thread::sleep(Duration::from_secs(1));
    site.expect("other", true)?;
    // Half a line, nonsense, an event of a kind nobody knows; the connection ends.
    fake.say(
        "networkpolicies",
        "{\"type\": \"ADDED\", \"object\": {\"metad",
    );
    fake.close("networkpolicies");
    fake.say("pods", "nonsense\n{\"type\":\"STRANGE\",\"object\":{}}\n");
    fake.close("pods");
    fake.wait_until_watched(AGAIN)?;
    site.expect("other", true)?;
    // A storm of relists, each with another truth; at every end the last list holds.
    let before = fake.listed("networkpolicies");
    for round in 0..4_u64 {
        let version = 100 + 10 * round;
        let policies = match round % 2 {
            0 => vec![versioned(&closed, version - 5)],
            _ => Vec::new(),
        };
        fake.list("networkpolicies", version, &policies);
        fake.list("pods", version, &listed);
        fake.expire("networkpolicies");
        fake.expire("pods");
        site.expect_within("client", round % 2 == 1, AGAIN)?;
        fake.wait_until_watched(AGAIN)?;
    }
    assert!(fake.listed("networkpolicies") >= before + 4);
    Ok(())
}
