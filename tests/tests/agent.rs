//! The agent as a process: what it takes over, leaves behind, tells, and needs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use palisade::api::{
    client,
    proto::{DriftStatus, Status},
};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Attempt, Connection, Outcome, Ports, Protocol, Stream, attempt},
    skip_without_root,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const NODE: &str = "node1";
const READY: Duration = Duration::from_secs(20);
/// How long an answer may take, or a silence lasts.
const ANSWER: Duration = Duration::from_millis(300);
const PORT: u16 = 8080;
const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "ptp"}]}"#;

/// A node with three pods, that know each other: `x/client`, `x/server` and `x/other`.
struct Site {
    manifests: Manifests,
    lab: Lab,
}

impl Site {
    fn new(cni: Cni) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, cni))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        manifests
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))?;
        for name in ["client", "server", "other"] {
            lab.add_pod(&format!("x/{name}"), NODE)?;
            lab.serve(&format!("x/{name}"), PORT, Protocol::Tcp)?;
        }
        let site = Self { manifests, lab };
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})];
        objects.extend(["client", "server", "other"].map(|name| site.pod(name)));
        let mut site = site;
        site.manifests.sync(&objects)?;
        Ok(site)
    }

    /// A pod as an object.
    fn pod(&self, name: &str) -> Value {
        let addresses = &self.lab.pod(&format!("x/{name}")).endpoint.addresses;
        let addresses: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"ip": ip.to_string()}))
            .collect();
        pod(name, addresses)
    }

    fn agent(&self, extra: &[&str]) -> Result<Agent> {
        Agent::start(
            &self.lab,
            NODE,
            &Agent::program()?,
            self.manifests.folder(),
            extra,
        )
    }

    fn ready(&self, extra: &[&str]) -> Result<Agent> {
        let mut agent = self.agent(extra)?;
        agent.wait_until_ready(READY)?;
        Ok(agent)
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

    /// Waits until a connection stands, or none does.
    fn expect(&self, from: &str, to: &str, expected: bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.reaches(from, to)? != expected {
            ensure!(
                Instant::now() < deadline,
                "{from} -> {to} is not {expected}"
            );
        }
        Ok(())
    }

    fn palisade(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self
            .lab
            .node(NODE)
            .endpoint
            .namespace
            .command(Agent::program()?);
        Ok(command.args(arguments).output()?)
    }

    fn bpffs(&self) -> PathBuf {
        self.lab.bpffs().join(NODE)
    }

    /// What the agent's HTTP server says: code and body.
    fn http(&self, path: &str) -> Result<(u16, String)> {
        self.http_at(9464, path)
    }

    fn http_at(&self, port: u16, path: &str) -> Result<(u16, String)> {
        let namespace = &self.lab.node(NODE).endpoint.namespace;
        let mut stream = namespace.run(|| TcpStream::connect(("127.0.0.1", port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        let code = head.split(' ').nth(1).context("a code")?.parse()?;
        Ok((code, body.to_owned()))
    }
}

fn pod(name: &str, addresses: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

/// Lets only the client reach the server.
fn only_client() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "only-client", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
        },
    })
}

/// Lets nobody reach the server.
fn nobody() -> Value {
    let mut policy = only_client();
    policy["spec"]["ingress"] = json!([]);
    policy
}

const STYLES: [Cni; 2] = [Cni::Ptp, Cni::Bridge { netfilter: true }];
const STRATEGIES: [&str; 2] = ["tcx", "clsact"];

#[test]
fn a_policy_cuts_and_its_removal_opens() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        for strategy in STRATEGIES {
            let mut site = Site::new(cni)?;
            let agent = site.ready(&["--attach", strategy])?;
            assert_eq!(agent.status()?.attach, strategy);
            site.expect("other", "server", true)?;
            site.manifests.apply(&only_client())?;
            site.expect("other", "server", false)?;
            site.expect("client", "server", true)?;
            site.expect("server", "other", true)?;
            site.manifests.delete(&only_client())?;
            site.expect("other", "server", true)?;
        }
    }
    Ok(())
}

#[test]
fn a_killed_agent_leaves_its_state_and_the_next_takes_it_over_without_a_gap() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for strategy in STRATEGIES {
        let mut site = Site::new(Cni::Ptp)?;
        site.manifests.apply(&only_client())?;
        let mut agent = site.ready(&["--attach", strategy])?;
        site.expect("other", "server", false)?;
        let (client, server) = (
            &site.lab.pod("x/client").endpoint,
            &site.lab.pod("x/server").endpoint,
        );
        let other = &site.lab.pod("x/other").endpoint;
        let mut open = Connection::open(client, server, 4, 9001, ANSWER)?;
        let allowed = Stream::start(client, server, 4, 9002, 1000, Ports::One)?;
        let fresh = Stream::start(client, server, 4, 9003, 500, Ports::Fresh)?;
        let denied = Stream::start(other, server, 4, 9004, 1000, Ports::Fresh)?;
        thread::sleep(Duration::from_millis(100));
        for round in 0..3 {
            match round {
                0 => drop(agent.process().kill()?),
                _ => {
                    agent.process().signal(Signal::TERM)?;
                    ensure!(
                        agent.process().wait(READY)?.success(),
                        "SIGTERM is no failure"
                    );
                }
            }
            thread::sleep(Duration::from_millis(100));
            ensure!(open.works(ANSWER), "without an agent");
            agent = site.ready(&["--attach", strategy])?;
            ensure!(open.works(ANSWER), "with its successor");
        }
        for (what, stream, passes) in [
            ("allowed", allowed, true),
            ("fresh", fresh, true),
            ("denied", denied, false),
        ] {
            let loss = stream.stop()?;
            let wrong = if passes { loss.lost() } else { loss.leaked() };
            ensure!(
                wrong == 0,
                "{strategy} {what}: {wrong} of {}",
                loss.sent.len()
            );
        }
    }
    Ok(())
}

#[test]
fn what_changed_without_an_agent_is_enforced_by_the_next() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_client())?;
    let mut agent = site.ready(&[])?;
    site.expect("client", "server", true)?;
    agent.process().kill()?;
    site.manifests.apply(&nobody())?;
    site.expect("client", "server", true)?;
    let _agent = site.ready(&[])?;
    site.expect("client", "server", false)
}

#[test]
fn nothing_is_applied_before_the_manifests_are_there() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_client())?;
    let mut agent = site.ready(&[])?;
    site.expect("other", "server", false)?;
    agent.process().kill()?;
    let elsewhere = site.lab.path().join("elsewhere");
    fs::rename(site.manifests.folder(), &elsewhere)?;
    let mut agent = site.agent(&[])?;
    agent.process().wait_for_log("serving the API", READY)?;
    ensure!(
        agent.wait_until_ready(Duration::from_millis(500)).is_err(),
        "not ready"
    );
    site.expect("other", "server", false)?;
    let (code, body) = site.http("/readyz?verbose")?;
    ensure!(code == 503 && body.contains("[-]source failed"), "{body}");
    fs::rename(&elsewhere, site.manifests.folder())?;
    agent.wait_until_ready(READY)?;
    site.expect("other", "server", false)
}

#[test]
fn a_second_agent_waits_for_the_first() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let mut first = site.ready(&[])?;
    let socket = site.lab.path().join("second.sock");
    let second = [
        "--socket",
        socket.to_str().context("UTF-8")?,
        "--http",
        "127.0.0.1:9465",
    ];
    let mut second = site.agent(&second)?;
    second
        .process()
        .wait_for_log("waiting for it to end", READY)?;
    site.manifests.apply(&nobody())?;
    site.expect("client", "server", false)?;
    first.process().signal(Signal::TERM)?;
    first.process().wait(READY)?;
    second
        .process()
        .wait_for_log("the programs are loaded", READY)?;
    site.manifests.apply(&only_client())?;
    site.expect("client", "server", true)?;
    second.process().signal(Signal::TERM)?;
    ensure!(second.process().wait(READY)?.success());
    Ok(())
}

#[test]
fn only_uninstall_removes_policy_and_not_from_under_an_agent() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for strategy in STRATEGIES {
        let mut site = Site::new(Cni::Ptp)?;
        site.manifests.apply(&nobody())?;
        let folder = |name: &str| site.lab.path().join(name);
        let (lists, programs) = (folder("lists"), folder("programs"));
        fs::create_dir(&lists)?;
        fs::create_dir(&programs)?;
        let list = lists.join("10-x.conflist");
        fs::write(&list, LIST)?;
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let plugin = [flag("cni-conf-dir", &lists), flag("cni-bin-dir", &programs)];
        let [lists, program] = plugin.each_ref().map(String::as_str);
        let mut agent = site.ready(&["--attach", strategy, lists, program])?;
        site.expect("client", "server", false)?;
        agent
            .process()
            .wait_for_log("the network plugin is installed", READY)?;
        ensure!(fs::read_to_string(&list)? != LIST, "no entry");
        let (bpffs, socket) = (site.bpffs(), agent.socket().to_owned());
        let places = [flag("bpffs", &bpffs), flag("socket", &socket)];
        let [bpffs_flag, socket] = places.each_ref().map(String::as_str);
        let uninstall = ["uninstall", bpffs_flag, socket, lists, program];
        let refused = site.palisade(&uninstall)?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(said.contains("end it first"), "{said}");
        ensure!(said.contains("an agent is at work in"), "{said}");
        site.expect("client", "server", false)?;
        agent.process().signal(Signal::TERM)?;
        agent.process().wait(READY)?;
        site.expect("client", "server", false)?;
        let done = site.palisade(&uninstall)?;
        ensure!(done.status.success(), "{done:?}");
        site.expect("client", "server", true)?;
        ensure!(!bpffs.exists(), "nothing is left");
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(fs::read_to_string(&list)? == LIST, "the entry is left");
        let program = programs.join("palisade");
        ensure!(!program.exists(), "the plugin's program is left");
        let order = [
            format!("removed: entry in {}", list.display()),
            format!("removed: {}", bpffs.display()),
            format!("removed: {}", program.display()),
            format!("removed: {}", folder(&format!("{NODE}.cni")).display()),
        ];
        let lines: Vec<_> = said.lines().collect();
        let places = order
            .iter()
            .map(|line| lines.iter().position(|other| other == line));
        let places: Option<Vec<_>> = places.collect();
        ensure!(places.is_some_and(|places| places.is_sorted()), "{said}");
        for device in ["veth-x-client", "veth-x-server", "veth-x-other"] {
            for hook in ["ingress", "egress"] {
                let removed = said.lines().any(|line| {
                    line.starts_with("removed: ") && line.ends_with(&format!("{hook} of {device}"))
                });
                ensure!(removed, "{hook} of {device}: {said}");
            }
        }
        ensure!(
            said.ends_with("nothing of Palisade is left on this node\n"),
            "{said}"
        );
        let again = site.palisade(&uninstall)?;
        ensure!(again.status.success(), "{again:?}");
    }
    Ok(())
}

#[test]
fn in_uninstall_mode_it_waits_for_another_and_is_ready_once_the_node_is_clean() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    const PORT: u16 = 9465;
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&nobody())?;
    let mut agent = site.ready(&[])?;
    site.expect("client", "server", false)?;
    let mut removing = site.agent(&["--uninstall", "--http", &format!("127.0.0.1:{PORT}")])?;
    let process = removing.process();
    process.wait_for_log("an agent is at work", READY)?;
    let (code, body) = site.http_at(PORT, "/readyz")?;
    ensure!(
        code == 503 && body.contains("end it first"),
        "{code} {body}"
    );
    ensure!(site.http_at(PORT, "/livez")?.0 == 200, "not alive");
    site.expect("client", "server", false)?;
    agent.process().signal(Signal::TERM)?;
    agent.process().wait(READY)?;
    process.wait_for_log("nothing of Palisade is left on this node", READY)?;
    ensure!(site.http_at(PORT, "/readyz")?.0 == 200, "not ready");
    ensure!(!site.bpffs().exists(), "something is left");
    site.expect("client", "server", true)?;
    // One that comes all the same, and ends, is cleaned up after.
    let mut stray = site.ready(&[])?;
    site.expect("client", "server", false)?;
    stray.process().signal(Signal::KILL)?;
    stray.process().wait(READY)?;
    site.expect("client", "server", true)?;
    process.signal(Signal::TERM)?;
    ensure!(process.wait(READY)?.success(), "SIGTERM is no failure");
    Ok(())
}

#[test]
fn status_names_every_pod_and_what_is_wrong() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_client())?;
    let agent = site.ready(&[])?;
    site.expect("other", "server", false)?;
    let status = serde_json::to_value(agent.status()?)?;
    assert_eq!(
        (&status["node"], &status["healthy"]),
        (&json!(NODE), &json!(true))
    );
    let server = &status["pods"][2];
    assert_eq!(server["name"], "server");
    assert_eq!(server["interface"], "veth-x-server");
    assert_eq!(
        server["ingress"],
        json!({"isolated": true, "policies": ["only-client"]})
    );
    assert_eq!(server["egress"], json!({"isolated": false, "policies": []}));
    assert_eq!(server["enforced"], true);

    site.manifests
        .apply(&pod("ghost", vec![json!({"ip": "10.99.0.1"})]))?;
    site.manifests.apply(&pod("pending", vec![]))?;
    fs::write(site.manifests.folder().join("half.yaml"), "kind: Network")?;
    let socket = agent.socket().to_str().context("UTF-8")?.to_owned();
    let deadline = Instant::now() + READY;
    let text = loop {
        let output = site.palisade(&["status", "--socket", &socket])?;
        let text = String::from_utf8(output.stdout)?;
        let looked = text.contains("no network namespace holds 10.99.0.1");
        if output.status.code() == Some(1) && text.contains("half.yaml") && looked {
            break text;
        }
        ensure!(Instant::now() < deadline, "{text}");
    };
    ensure!(text.contains("it has no address yet"), "{text}");
    let (code, body) = site.http("/readyz")?;
    ensure!(
        code == 503 && body.contains("[-]enforcement failed: 1 pods are not enforced: x/ghost"),
        "{body}"
    );
    ensure!(site.http("/livez")? == (200, "ok".to_owned()), "alive");
    Ok(())
}

#[test]
fn a_pod_whose_interface_comes_later_is_enforced_then() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let address: IpAddr = "10.244.1.200".parse()?;
    let mut late = pod("late", vec![json!({"ip": address.to_string()})]);
    late["metadata"]["labels"] = json!({"app": "server"});
    site.manifests.apply(&late)?;
    site.manifests.apply(&nobody())?;
    let mut agent = site.agent(&[])?;
    agent.process().wait_for_log("serving the API", READY)?;
    site.lab.add_pod_at("x/late", NODE, &[address])?;
    site.lab.serve("x/late", PORT, Protocol::Tcp)?;
    agent.wait_until_ready(READY)?;
    ensure!(!site.reaches("client", "late")?);
    site.lab.remove_pod("x/late")?;
    ensure!(agent.wait_until_ready(Duration::from_millis(300)).is_err());
    site.manifests.delete(&late)?;
    agent.wait_until_ready(READY)
}

#[test]
fn the_first_healthy_status_knows_every_pod() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    // So many that somebody asks while they are taken in.
    for number in 0..2000_u32 {
        let address = IpAddr::from((0x0a80_0000 + number).to_be_bytes());
        let mut far = pod(&format!("far-{number}"), vec![json!({"ip": address})]);
        far["spec"]["nodeName"] = json!("elsewhere");
        site.manifests.apply(&far)?;
    }
    let agent = site.agent(&[])?;
    let deadline = Instant::now() + READY;
    loop {
        match client::get::<Status>(agent.socket(), "/v1/status") {
            Ok(Status { healthy, pods, .. }) if healthy => {
                ensure!(
                    pods.len() == 3 && pods.iter().all(|pod| pod.enforced),
                    "{pods:#?}"
                );
                return Ok(());
            }
            _ => ensure!(Instant::now() < deadline, "not healthy"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_program_taken_off_is_put_back() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&nobody())?;
    let mut agent = site.ready(&["--attach", "tcx"])?;
    site.expect("client", "server", false)?;
    for link in fs::read_dir(site.bpffs().join("links"))? {
        let (link, mut bpftool) = (link?.path(), Command::new("bpftool"));
        let done = bpftool
            .args(["link", "detach", "pinned"])
            .arg(link)
            .output()?;
        ensure!(done.status.success(), "{done:?}");
    }
    agent
        .process()
        .wait_for_log("not where it was put", READY + READY)?;
    site.expect("client", "server", false)?;
    ensure!(agent.status()?.drift.programs >= 1);
    Ok(())
}

#[test]
fn what_is_changed_in_a_map_is_put_back() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&nobody())?;
    let mut agent = site.ready(&["--verify-seconds", "1"])?;
    site.expect("client", "server", false)?;
    assert_eq!(agent.status()?.drift, DriftStatus::default());
    // The first table that is no constant allows everything now.
    let sets = fs::read_dir(site.bpffs())?;
    let paths = sets.filter_map(|set| Some(set.ok()?.path().join("maps/TABLES")));
    let tables = paths.into_iter().find(|path| path.exists());
    let tables = tables.context("no map of tables")?;
    let allow = "1 0 0 0 ".repeat(4);
    let update = format!(
        "map update pinned {} key 2 0 0 0 value {allow}",
        tables.display()
    );
    let arguments: Vec<_> = update.split_whitespace().collect();
    let done = Command::new("bpftool").args(&arguments).output()?;
    ensure!(done.status.success(), "{done:?}");
    agent
        .process()
        .wait_for_log("not what was written", READY + READY)?;
    site.expect("client", "server", false)?;
    let (_, metrics) = site.http("/metrics")?;
    let line = r#"palisade_drift_repairs_total{what="entry"} 1"#;
    ensure!(metrics.contains(line), "{metrics}");
    assert_eq!(agent.status()?.drift.entries, 1);
    Ok(())
}

#[test]
fn denied_packets_are_logged_and_counted_with_the_policies_that_isolate() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_client())?;
    let mut agent = site.ready(&["--log-format", "json"])?;
    site.expect("other", "server", false)?;
    agent.process().wait_for_log("\"denied\"", READY)?;
    let log = agent.process().log();
    let line = log
        .lines()
        .find(|line| line.contains("\"denied\""))
        .context("a line")?;
    let line: Value = serde_json::from_str(line)?;
    for (key, expected) in [
        ("/pod/pod", json!("server")),
        ("/peer/pod", json!("other")),
        ("/direction", json!("ingress")),
        ("/destinationPort", json!(PORT)),
        ("/protocol", json!("TCP")),
        ("/reason", json!("policy")),
        ("/policies", json!(["only-client"])),
    ] {
        assert_eq!(line.pointer(key), Some(&expected), "{key}: {line}");
    }
    let (code, metrics) = site.http("/metrics")?;
    assert_eq!(code, 200);
    let value = |name: &str| -> Option<f64> {
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let denied =
        r#"palisade_verdict_packets_total{direction="ingress",verdict="denied",reason="policy"}"#;
    for (name, least) in [
        (denied, 1.0),
        (
            r#"palisade_verdict_packets_total{direction="egress",verdict="allowed"}"#,
            1.0,
        ),
        (
            r#"palisade_verdict_bytes_total{direction="ingress",verdict="denied"}"#,
            60.0,
        ),
        (r#"palisade_pods{state="enforced"}"#, 3.0),
        (r#"palisade_map_max_entries{map="peers_v4"}"#, 1.0),
        (r#"palisade_map_entries{map="slots"}"#, 3.0),
        ("palisade_enforcement_delay_seconds_count", 1.0),
        ("palisade_source_changes_total", 5.0),
        (r#"palisade_condition{condition="source"}"#, 1.0),
        ("palisade_build_info", 1.0),
    ] {
        let value = value(name).with_context(|| format!("no {name}: {metrics}"))?;
        ensure!(value >= least, "{name} {value}");
    }
    ensure!(metrics.ends_with("# EOF\n"), "OpenMetrics");
    Ok(())
}

#[test]
fn three_capabilities_are_enough_and_each_is_needed() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_client())?;
    let program = Agent::program()?;
    for (capabilities, enough) in [
        ("+bpf,+net_admin,+perfmon", true),
        ("+net_admin,+perfmon", false),
        ("+bpf,+perfmon", false),
        ("+bpf,+net_admin", false),
    ] {
        let mut command = Agent::limited(&site.lab, NODE, Some(capabilities));
        command.arg(&program);
        let mut agent = Agent::start_as(
            &site.lab,
            NODE,
            command,
            &program,
            site.manifests.folder(),
            &[],
        )?;
        if enough {
            agent.wait_until_ready(READY)?;
            let status = fs::read_to_string(format!("/proc/{}/status", agent.process().pid()))?;
            let effective = status
                .lines()
                .find(|line| line.starts_with("CapEff"))
                .context("CapEff")?;
            // CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
            let expected = format!("{:016x}", (1_u64 << 12) | (1 << 38) | (1 << 39));
            ensure!(effective.ends_with(&expected), "{effective}");
            site.expect("other", "server", false)?;
            site.expect("client", "server", true)?;
        } else {
            ensure!(!agent.process().wait(READY)?.success(), "{capabilities}");
            ensure!(
                agent.process().log().contains("CAP_"),
                "{}",
                agent.process().log()
            );
        }
    }
    Ok(())
}

#[test]
fn a_renamed_policy_is_in_force_within_a_tenth_of_a_second_among_a_thousand_pods() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let mut items = Vec::new();
    for number in 0..997 {
        let mut pod = pod(
            &format!("far-{number}"),
            vec![json!({"ip": format!("10.250.{}.{}", number / 250, number % 250)})],
        );
        pod["spec"]["nodeName"] = json!("elsewhere");
        items.push(pod);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    fs::write(site.manifests.folder().join("far.json"), list.to_string())?;
    let _agent = site.ready(&[])?;
    let mut times = Vec::new();
    for _ in 0..10 {
        let stream = Stream::start(
            &site.lab.pod("x/client").endpoint,
            &site.lab.pod("x/server").endpoint,
            4,
            9100,
            2000,
            Ports::Fresh,
        )?;
        thread::sleep(Duration::from_millis(50));
        let renamed = Instant::now();
        site.manifests.apply(&nobody())?;
        thread::sleep(Duration::from_millis(400));
        let loss = stream.stop()?;
        times.push(
            loss.last_leak()
                .context("nothing ever passed")?
                .duration_since(renamed),
        );
        site.manifests.delete(&nobody())?;
        site.expect("client", "server", true)?;
    }
    times.sort_unstable();
    println!("from the rename to the first packet judged by it: {times:?}");
    if times[5] > Duration::from_millis(100) {
        bail!("{times:?}");
    }
    Ok(())
}
