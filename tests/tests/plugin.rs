//! The network plugin as a process, called as a runtime calls it, beside the real agent.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::chown,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade::{
    api::proto::{Plugin, PodStatus},
    cni::record::Records,
};
use palisade_tests::{
    agent::Agent,
    control_plane::Fake,
    lab::{Cni, Lab, Namespace, Plan},
    manifest::{Manifests, replace},
    plugin::{Call, Done, Running, previous},
    probe::{Attempt, Outcome, Protocol, attempt},
    skip_without_root,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const NODE: &str = "node1";
const READY: Duration = Duration::from_secs(30);
/// How long a silence lasts, and how long an answer may take on a busy machine.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
/// How long the plugin waits for an agent, in seconds.
const WAIT: u64 = 10;
/// What may not depend on an agent: a busy machine takes its time, but not that of a wait.
const AT_ONCE: Duration = Duration::from_secs(WAIT / 2);

/// A node with the pods `x/friend`, `x/stranger` and `x/new`, of which the last is about to start. It may be reached by
/// its friend, and reaches nobody.
struct Site {
    lab: Lab,
    manifests: Manifests,
}

impl Site {
    fn new(cni: Cni) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, cni))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        manifests
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))?;
        manifests.apply(&policy("new"))?;
        for name in ["friend", "stranger", "new"] {
            lab.add_pod(&format!("x/{name}"), NODE)?;
            lab.serve(&format!("x/{name}"), PORT, Protocol::Tcp)?;
        }
        let mut site = Self { lab, manifests };
        for name in ["friend", "stranger"] {
            site.tell(name, "1", true)?;
        }
        Ok(site)
    }

    /// The API tells of a pod, of a new one without its addresses.
    fn tell(&mut self, name: &str, uid: &str, addresses: bool) -> Result<()> {
        let known = &self.lab.pod(&format!("x/{name}")).endpoint.addresses;
        let known = known.iter().filter(|_| addresses);
        let known: Vec<_> = known.map(|ip| json!({"ip": ip})).collect();
        self.manifests.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "x", "uid": uid, "labels": {"name": name}},
            "spec": {"nodeName": NODE},
            "status": {"phase": if addresses { "Running" } else { "Pending" }, "podIPs": known},
        }))?;
        Ok(())
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

    fn ready(&self) -> Result<Agent> {
        let mut agent = self.agent(&[])?;
        agent.wait_until_ready(READY)?;
        Ok(agent)
    }

    /// Where plugin and agent meet.
    fn folder(&self) -> PathBuf {
        self.lab.path().join(format!("{NODE}.cni"))
    }

    /// The plugin's part of the list, as the runtime hands it over.
    fn configuration(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "cluster", "type": "palisade",
            "folder": self.folder(), "waitSeconds": WAIT,
            "prevResult": previous(self.lab.pod("x/new")),
        })
    }

    fn call(&self, command: &str, container: &str, configuration: &Value) -> Result<Running> {
        let call = Call {
            command,
            container,
            arguments: "K8S_POD_NAMESPACE=x;K8S_POD_NAME=new;K8S_POD_UID=1",
            configuration,
        };
        let node = &self.lab.node(NODE).endpoint.namespace;
        call.start(&Agent::program()?, node, self.lab.pod("x/new"))
    }

    fn add(&self, container: &str) -> Result<Running> {
        self.call("ADD", container, &self.configuration())
    }

    /// Folders as a runtime has them, of lists and of programs.
    fn folders(&self) -> Result<[String; 2]> {
        let [lists, programs] = ["lists", "programs"].map(|name| self.lab.path().join(name));
        for folder in [&lists, &programs] {
            fs::create_dir(folder)?;
        }
        replace(&lists.join("10-x.conflist"), LIST.as_bytes())?;
        Ok([lists, programs].map(|folder| folder.display().to_string()))
    }

    fn end(running: Running) -> Result<Done> {
        running.end(Duration::from_secs(WAIT + 1))
    }

    fn reaches(&self, from: &str, to: &str, patience: Duration) -> Result<bool> {
        let to = self.lab.pod(&format!("x/{to}")).endpoint.address(4);
        let attempts = [Attempt {
            from: &self.lab.pod(&format!("x/{from}")).endpoint.namespace,
            to: SocketAddr::new(to.context("IPv4")?, PORT),
            protocol: Protocol::Tcp,
            patience,
        }];
        Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
    }

    /// That the new pod is as its policy says, at once.
    fn expect_policed(&self) -> Result<()> {
        ensure!(
            !self.reaches("new", "stranger", SILENCE)?,
            "a packet got out"
        );
        ensure!(
            !self.reaches("stranger", "new", SILENCE)?,
            "a packet got in"
        );
        ensure!(
            self.reaches("friend", "new", PATIENCE)?,
            "its friend is cut off"
        );
        Ok(())
    }
}

/// Isolates a pod, but for what its friend sends.
fn policy(of: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "new", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"name": of}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"name": "friend"}}}]}],
        },
    })
}

fn details(done: &Done) -> &str {
    done.answer["details"].as_str().unwrap_or_default()
}

fn new_pod(agent: &Agent) -> Result<PodStatus> {
    let mut pods = agent.status()?.pods.into_iter();
    pods.find(|pod| pod.name == "new")
        .context("the new pod is not in the status")
}

/// Of the new pod, whether it was held, and why not.
fn start_of_new(agent: &Agent) -> Result<(bool, Option<String>)> {
    let PodStatus { held, unheld, .. } = new_pod(agent)?;
    Ok((held, unheld))
}

#[test]
fn a_pod_is_held_until_its_policies_are_in_force() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in [Cni::Ptp, Cni::Bridge { netfilter: true }] {
        let mut site = Site::new(cni)?;
        let agent = site.ready()?;
        ensure!(
            site.reaches("new", "stranger", PATIENCE)?,
            "nobody knows it yet"
        );
        let mut add = site.add("one")?;
        thread::sleep(Duration::from_millis(500));
        ensure!(add.is_running()?, "nothing is known of its labels");
        site.tell("new", "another", false)?;
        thread::sleep(Duration::from_millis(500));
        ensure!(add.is_running()?, "that is another pod of its name");
        site.tell("new", "1", false)?;
        let done = Site::end(add)?;
        ensure!(done.success, "{cni:?}: {}", done.answer);
        assert_eq!(done.answer, previous(site.lab.pod("x/new")), "{cni:?}");
        // The API has not told its addresses.
        site.expect_policed()?;
        assert_eq!(start_of_new(&agent)?, (true, None), "{cni:?}");
        let check = site.call("CHECK", "one", &site.configuration())?;
        ensure!(Site::end(check)?.success);
    }
    Ok(())
}

#[test]
fn without_an_agent_a_pod_does_not_start_unless_it_is_told_to() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.tell("new", "1", false)?;
    let mut configuration = site.configuration();
    configuration["waitSeconds"] = 1.into();
    let done = Site::end(site.call("ADD", "one", &configuration)?)?;
    ensure!(!done.success);
    assert_eq!(
        (&done.answer["code"], &done.answer["cniVersion"]),
        (&json!(11), &json!("1.0.0"))
    );
    ensure!(details(&done).contains("uninstall"), "{}", done.answer);
    ensure!(details(&done).contains("x/new"), "{}", done.answer);
    ensure!(done.took >= Duration::from_millis(900), "{done:?}");

    configuration["onTimeout"] = "allow".into();
    let done = Site::end(site.call("ADD", "two", &configuration)?)?;
    ensure!(done.success, "{}", done.answer);
    // It has started, and an agent that comes later knows of it what the API does not tell.
    let agent = site.ready()?;
    let (held, unheld) = start_of_new(&agent)?;
    ensure!(!held && unheld.is_some_and(|why| why.contains("cannot be asked")));
    site.expect_policed()
}

#[test]
fn what_removes_and_what_asks_for_health_needs_no_agent() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.tell("new", "1", false)?;
    let mut agent = site.ready()?;
    ensure!(Site::end(site.add("one")?)?.success);
    let at_once = |command: &str, configuration: &Value| -> Result<Done> {
        let done = site.call(command, "one", configuration)?.end(AT_ONCE)?;
        ensure!(done.success, "{command}: {}", done.answer);
        Ok(done)
    };
    let mut configuration = site.configuration();
    let records = Records::new(site.folder());
    let known = || -> Result<usize> { Ok(records.all()?.len()) };
    for state in ["running", "stopped", "gone"] {
        match state {
            "stopped" => agent.process().signal(Signal::STOP)?,
            "gone" => drop(agent.process().kill()?),
            _ => {}
        }
        at_once("STATUS", &configuration)?;
        let version = at_once("VERSION", &configuration)?.answer;
        ensure!(
            version["supportedVersions"]
                .as_array()
                .is_some_and(|all| all.contains(&json!("1.1.0")))
        );
        configuration["cni.dev/valid-attachments"] =
            json!([{"containerID": "one", "ifname": "eth0"}]);
        at_once("GC", &configuration)?;
        assert_eq!(known()?, 1, "{state}");
        configuration["cni.dev/valid-attachments"] = json!([]);
        at_once("GC", &configuration)?;
        assert_eq!(known()?, 0, "{state}");
        at_once("DEL", &configuration)?;
        at_once("DEL", &json!({}))?;
        // For the next round.
        fs::remove_file(site.folder().join("one.gone"))?;
        let mut brief = site.configuration();
        brief["waitSeconds"] = 1.into();
        brief["onTimeout"] = "allow".into();
        ensure!(Site::end(site.call("ADD", "one", &brief)?)?.success);
    }
    Ok(())
}

#[test]
fn an_add_that_comes_after_its_del_is_refused() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let agent = site.ready()?;
    // An orphan of a runtime that was killed waits on.
    let orphan = site.add("one")?;
    thread::sleep(Duration::from_millis(300));
    let del = site
        .call("DEL", "one", &site.configuration())?
        .end(AT_ONCE)?;
    ensure!(del.success);
    let done = Site::end(orphan)?;
    ensure!(
        !done.success && details(&done).contains("removed"),
        "{}",
        done.answer
    );
    site.tell("new", "1", false)?;
    let late = Site::end(site.add("one")?)?;
    ensure!(!late.success, "{}", late.answer);
    assert_eq!(late.answer["code"], 3);
    ensure!(Site::end(site.add("two")?)?.success);
    assert_eq!(start_of_new(&agent)?, (true, None));
    Ok(())
}

#[test]
fn an_agent_that_is_replaced_meanwhile_lets_the_pod_start() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let mut agent = site.ready()?;
    let mut killed = site.add("one")?;
    thread::sleep(Duration::from_millis(300));
    agent.process().kill()?;
    let mut agent = site.ready()?;
    ensure!(killed.is_running()?);
    agent.process().signal(Signal::TERM)?;
    agent.process().wait(READY)?;
    ensure!(killed.is_running()?);
    let agent = site.ready()?;
    site.tell("new", "1", false)?;
    let done = Site::end(killed)?;
    ensure!(done.success, "{}", done.answer);
    site.expect_policed()?;
    assert_eq!(start_of_new(&agent)?, (true, None));
    // One that comes later knows it still.
    drop(agent);
    let agent = site.ready()?;
    assert_eq!(start_of_new(&agent)?, (true, None));
    site.expect_policed()
}

#[test]
fn a_sandbox_that_is_made_anew_has_the_pods_policies() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.tell("new", "1", false)?;
    let _agent = site.ready()?;
    ensure!(Site::end(site.add("first")?)?.success);
    site.tell("new", "1", true)?;
    // With another address, and then with the same on another device.
    let same: Vec<IpAddr> = site.lab.pod("x/new").endpoint.addresses.clone();
    for (container, former, addresses) in
        [("second", "first", None), ("third", "second", Some(same))]
    {
        let del = site
            .call("DEL", former, &site.configuration())?
            .end(AT_ONCE)?;
        ensure!(del.success);
        site.lab.remove_pod("x/new")?;
        match addresses {
            None => site.lab.add_pod("x/new", NODE)?,
            Some(addresses) => site.lab.add_pod_at("x/new", NODE, &addresses)?,
        };
        site.lab.serve("x/new", PORT, Protocol::Tcp)?;
        let done = Site::end(site.add(container)?)?;
        ensure!(done.success, "{container}: {}", done.answer);
        site.expect_policed().context(container)?;
    }
    Ok(())
}

#[test]
fn a_pod_that_takes_the_address_of_another_is_not_taken_for_it() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.tell("new", "1", false)?;
    let agent = site.ready()?;
    // Its device is newer than the one that the address belongs to.
    let addresses = site.lab.pod("x/new").endpoint.addresses.clone();
    site.lab.add_pod_at("x/thief", NODE, &addresses)?;
    ensure!(Site::end(site.add("one")?)?.success);
    let own = Some(site.lab.pod("x/new").interface.clone());
    assert_eq!(new_pod(&agent)?.interface, own);
    // Everything is looked at anew.
    drop(agent);
    let agent = site.ready()?;
    assert_eq!(new_pod(&agent)?.interface, own);
    Ok(())
}

#[test]
fn a_pod_where_nothing_can_be_enforced_starts_if_no_policy_speaks_of_it() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.tell("new", "1", false)?;
    let agent = site.ready()?;
    let new = site.lab.pod("x/new");
    let namespace = new.endpoint.namespace.path().display().to_string();
    let (node, inside) = (
        &site.lab.node(NODE).endpoint.namespace,
        &new.endpoint.namespace,
    );
    let ip = |place: &Namespace, command: &str| -> Result<String> {
        place.output("ip", &command.split(' ').collect::<Vec<_>>(), "")
    };
    ip(node, &format!("link delete {}", new.interface))?;
    ip(node, "link add link eth0 name mv0 type macvlan mode bridge")?;
    ip(node, &format!("link set mv0 netns {namespace}"))?;
    for address in &new.endpoint.addresses {
        ip(inside, &format!("address add {address} dev mv0"))?;
    }
    let mut configuration = site.configuration();
    configuration["waitSeconds"] = 2.into();
    let done = Site::end(site.call("ADD", "one", &configuration)?)?;
    ensure!(
        !done.success && details(&done).contains("no host side"),
        "{}",
        done.answer
    );
    ensure!(
        site.call("DEL", "one", &configuration)?
            .end(AT_ONCE)?
            .success
    );
    site.manifests.apply(&policy("other"))?;
    let done = Site::end(site.call("ADD", "two", &configuration)?)?;
    ensure!(done.success && done.took < AT_ONCE, "{done:?}");
    ensure!(!new_pod(&agent)?.enforced, "status says so");
    Ok(())
}

/// An object as a server has it.
fn versioned(mut object: Value, version: u64) -> Value {
    object["metadata"]["resourceVersion"] = version.to_string().into();
    object
}

#[test]
fn a_pod_waits_for_a_policy_that_the_server_has_and_the_watch_has_not_told() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Site::new(Cni::Ptp)?;
    let fake = Fake::start(&site.lab.node(NODE).endpoint.namespace)?;
    let kubeconfig = site.lab.path().join("kubeconfig");
    fake.kubeconfig(&kubeconfig)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "new", "namespace": "x", "uid": "1"},
        "spec": {"nodeName": NODE},
    });
    let late = |name: &str, version| {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "x"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
        });
        versioned(policy, version)
    };
    fake.list("namespaces", 10, &[versioned(namespace, 5)]);
    fake.list("pods", 10, &[versioned(pod, 6)]);
    fake.list("networkpolicies", 10, &[]);
    fake.list("services", 10, &[]);
    let program = Agent::program()?;
    let mut agent = Agent::start_watching(&site.lab, NODE, &program, &kubeconfig, &[])?;
    agent.wait_until_ready(READY)?;
    fake.wait_until_watched(READY)?;

    // The server does not answer, and then it has a policy of which the watch says nothing.
    fake.refuse("networkpolicies", Some(500));
    let mut add = site.add("one")?;
    thread::sleep(Duration::from_secs(1));
    ensure!(add.is_running()?);
    fake.list("networkpolicies", 20, &[late("late", 20)]);
    fake.refuse("networkpolicies", None);
    thread::sleep(Duration::from_secs(1));
    ensure!(add.is_running()?, "there may be more policies");
    fake.tell("networkpolicies", "ADDED", &late("late", 20));
    let done = Site::end(add)?;
    ensure!(done.success, "{}", done.answer);
    ensure!(
        !site.reaches("new", "stranger", SILENCE)?,
        "a packet got out"
    );
    // All of them are known now.
    let done = Site::end(site.add("two")?)?;
    ensure!(done.success && done.took < AT_ONCE, "{done:?}");
    Ok(())
}

const LIST: &str = r#"{"cniVersion": "0.4.0", "name": "x", "plugins": [{"type": "ptp"}]}"#;

#[test]
fn the_agent_keeps_the_plugin_installed_and_holds_nobody_while_it_writes() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let folders = site.folders()?;
    let [lists, programs] = folders.each_ref().map(PathBuf::from);
    let list = lists.join("10-x.conflist");
    let flags = ["--cni-conf-dir", &folders[0], "--cni-bin-dir", &folders[1]];
    let start = || -> Result<Agent> {
        let mut agent = site.agent(&flags)?;
        agent.wait_until_ready(READY)?;
        let end = Instant::now() + READY;
        while !agent
            .status()?
            .plugin
            .is_some_and(|plugin| plugin.installed)
        {
            ensure!(Instant::now() < end, "{:?}", agent.status()?.plugin);
            thread::sleep(Duration::from_millis(5));
        }
        Ok(agent)
    };
    let agent = start()?;
    let content = fs::read_to_string(&list)?;
    let parsed: Value = serde_json::from_str(&content)?;
    assert_eq!(parsed["cniVersion"], "0.4.0");
    assert_eq!(parsed["plugins"][1]["type"], "palisade");
    assert_eq!(parsed["plugins"][1]["folder"], json!(site.folder()));
    ensure!(fs::read(programs.join("palisade"))? == fs::read(Agent::program()?)?);
    // A successor that finds all as it should be writes nothing.
    let written = fs::metadata(&list)?.modified()?;
    drop(agent);
    let agent = start()?;
    assert_eq!(fs::metadata(&list)?.modified()?, written);

    // Another writer removes the entry while a pod is held: the runtime would wait for it before it reads on.
    let held = site.add("one")?;
    thread::sleep(Duration::from_millis(300));
    let removed = Instant::now();
    replace(&list, LIST.as_bytes())?;
    let done = Site::end(held)?;
    ensure!(
        !done.success && details(&done).contains("being written"),
        "{}",
        done.answer
    );
    while fs::read_to_string(&list)? != content {
        ensure!(removed.elapsed() < READY, "it is not brought back");
        thread::sleep(Duration::from_millis(1));
    }
    println!("the entry was back after {:?}", removed.elapsed());
    // Who starts meanwhile is named.
    ensure!(Site::end(site.call("DEL", "one", &site.configuration())?)?.success);
    // Another pod than that of the sandbox, whose end the agent may not have heard of yet.
    site.tell("new", "2", true)?;
    let end = Instant::now() + READY;
    while start_of_new(&agent).ok().and_then(|(_, why)| why).is_none() {
        ensure!(Instant::now() < end, "{:?}", agent.status()?.pods);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn folders_that_are_not_roots_are_written_by_who_may() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Site::new(Cni::Ptp)?;
    let folders = site.folders()?;
    for folder in &folders {
        chown(folder, Some(65534), Some(65534))?;
    }
    let flags = ["--cni-conf-dir", &folders[0], "--cni-bin-dir", &folders[1]];
    let program = Agent::program()?;
    let told = |wanted: bool| -> Result<Plugin> {
        let mut command = Agent::limited(&site.lab, NODE, None);
        command.arg(&program);
        let manifests = site.manifests.folder();
        let mut agent = Agent::start_as(&site.lab, NODE, command, &program, manifests, &flags)?;
        agent.wait_until_ready(READY)?;
        let end = Instant::now() + READY;
        loop {
            match agent.status()?.plugin {
                Some(plugin) if plugin.installed == wanted => return Ok(plugin),
                plugin => ensure!(Instant::now() < end, "{plugin:?}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    let reason = told(false)?.reason.unwrap_or_default();
    ensure!(reason.contains("ermission denied"), "{reason}");
    let mut install = Command::new(&program);
    install.arg("install-plugin").args(flags).arg("--socket");
    let socket = site.lab.path().join(format!("{NODE}.sock"));
    ensure!(install.arg(socket).status()?.success());
    // The agent finds all as it should be.
    let list = told(true)?.list.unwrap_or_default();
    ensure!(fs::read_to_string(&list)?.contains("palisade"), "{list}");
    Ok(())
}
