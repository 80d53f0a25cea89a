//! A real Prometheus, the alerts and the dashboard of the chart, and an agent that it scrapes.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    control_plane::{ControlPlane, Objects, Relay, program, skip_without, skip_without_assets},
    lab::{Cni, Lab, Plan, Process, both},
    probe::{Attempt, Outcome, Protocol, attempt},
    site::{INTERNET, READY},
    skip_without_root,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const NODE: &str = "node1";
/// How long until everything was scraped and judged a few times, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const ANSWER: Duration = Duration::from_millis(200);
const PORT: u16 = 8080;
/// Where agent and Prometheus serve.
const METRICS: u16 = 9464;
const PROMETHEUS: u16 = 9090;
/// What an agent may have of series, whatever it enforces.
const SERIES: f64 = 200.0;
const ALERTS: &str = "deploy/helm/palisade/monitoring/alerts.yaml";
const DASHBOARD: &str = "deploy/helm/palisade/monitoring/dashboard.json";
const LIST: &str = r#"{"cniVersion": "0.4.0", "name": "x", "plugins": [{"type": "ptp"}]}"#;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn promtool(words: &[&str], file: &Path) -> Result<String> {
    let output = Command::new(program("promtool")?)
        .args(words)
        .arg(file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}:\n{said}{complaint}");
    Ok(said)
}

#[test]
fn alerts_are_raised_on_their_symptoms_and_on_nothing_that_looks_like_them() -> Result<()> {
    if skip_without("promtool") {
        return Ok(());
    }
    promtool(&["check", "rules", "--lint-fatal"], &at(ALERTS))?;
    promtool(
        &["test", "rules"],
        &at("deploy/monitoring/alerts.test.yaml"),
    )?;
    Ok(())
}

#[test]
fn prometheus_takes_the_configuration_that_the_page_shows() -> Result<()> {
    if skip_without("promtool") {
        return Ok(());
    }
    let page = fs::read_to_string(at("docs/monitoring.md"))?;
    let shown = page.split("```yaml\n").nth(1).context("no configuration")?;
    let shown = shown.split("```").next().unwrap_or_default();
    let mut shown: Value = serde_saphyr::from_str(shown)?;
    let job = shown["scrape_configs"][0].as_object_mut();
    let job = job.context("no job")?;
    // Debian's knows no Kubernetes.
    let found = job.remove("kubernetes_sd_configs");
    ensure!(found.is_some_and(|found| found[0]["role"] == "pod"));
    job.insert("static_configs".to_owned(), json!([{"targets": ["a"]}]));
    let folder = std::env::temp_dir().join(format!("palisade-monitoring-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("prometheus.yaml");
    fs::write(&file, shown.to_string())?;
    fs::copy(at(ALERTS), folder.join("alerts.yaml"))?;
    let said = promtool(&["check", "config"], &file);
    fs::remove_dir_all(&folder)?;
    let said = said?;
    ensure!(said.contains("1 rule files found"), "{said}");
    Ok(())
}

/// A node whose agent watches a cluster, and a Prometheus outside that scrapes it.
struct Site {
    prometheus: Process,
    agent: Agent,
    lab: Lab,
    /// The agent's way to the API server.
    relay: Relay,
}

impl Site {
    /// The server takes connections of the client alone; the pod `ghost` has an address that nobody has.
    fn at(control_plane: &ControlPlane, objects: &mut Objects<'_>) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
        objects
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))?;
        for name in ["client", "other", "server"] {
            let full = format!("x/{name}");
            let addresses = lab.add_pod(&full, NODE)?.endpoint.addresses.clone();
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            lab.serve(&full, PORT, Protocol::Tcp)?;
            objects.apply(&pod(name, &addresses))?;
        }
        objects.apply(&pod("ghost", &["10.244.99.99".to_owned()]))?;
        objects.apply(&policy("client"))?;
        lab.add_outside("internet", &both(INTERNET.into()))?;

        let node = &lab.node(NODE).endpoint;
        let relay = Relay::start(&node.namespace, control_plane.address())?;
        let kubeconfig = lab.path().join("kubeconfig");
        control_plane.kubeconfig(relay.address(), &kubeconfig)?;
        let folders = ["lists", "programs"].map(|name| lab.path().join(name));
        for folder in &folders {
            fs::create_dir(folder)?;
        }
        let [lists, _] = folders;
        fs::write(lists.join("10-x.conflist"), LIST)?;
        let agent = start_agent(&lab, "on")?;
        let address = node.address(4).context("IPv4")?;
        let target = SocketAddr::new(address, METRICS);
        let prometheus = start_prometheus(&lab, target)?;
        Ok(Self {
            prometheus,
            agent,
            lab,
            relay,
        })
    }

    /// Waits until a query brings one sample, of that value.
    fn expect(&mut self, query: &str, value: f64) -> Result<()> {
        self.wait(|site| {
            let found = site.query(query)?;
            let is = matches!(&*found, [(_, found)] if (found - value).abs() < 0.5);
            Ok((!is).then(|| format!("{query} is {found:?}, not {value}")))
        })
    }

    /// Pauses the node, or ends that.
    fn pause(&self, words: &[&str]) -> Result<()> {
        let mut pause = Command::new(Agent::program()?);
        pause.arg("pause").args(words);
        let output = pause.arg("--socket").arg(self.agent.socket()).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// Whether a connection from that pod to the server stands.
    fn reaches(&self, from: &str) -> Result<bool> {
        let to = self.lab.pod("x/server").endpoint.address(4);
        let attempts = [Attempt {
            from: &self.lab.pod(&format!("x/{from}")).endpoint.namespace,
            to: SocketAddr::new(to.context("IPv4")?, PORT),
            protocol: Protocol::Tcp,
            patience: ANSWER,
        }];
        Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
    }

    /// What Prometheus answers, without its envelope; none while it does not.
    fn ask(&self, path: &str) -> Result<Option<Value>> {
        let internet = self.lab.endpoint("internet").context("a host outside")?;
        let stream = internet
            .namespace
            .run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PROMETHEUS)));
        // It is still starting.
        let Ok(mut stream) = stream else {
            return Ok(None);
        };
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        // It reads what it has stored.
        if head.contains(" 503 ") {
            return Ok(None);
        }
        let answer: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(Some(answer["data"].clone()))
    }

    /// What a query brings at present: each sample's labels and value.
    fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            write!(path, "%{byte:02X}")?;
        }
        let answer = self.ask(&path)?.unwrap_or_default();
        let samples = answer["result"].as_array().into_iter().flatten();
        let samples = samples.map(|sample| {
            let value = sample["value"][1].as_str().context("no value")?;
            Ok((sample["metric"].clone(), value.parse()?))
        });
        samples.collect()
    }

    /// Waits until all that is asked has come true; `lacking` says what has not yet.
    fn wait(&mut self, lacking: impl Fn(&Self) -> Result<Option<String>>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while let Some(lacking) = lacking(self)? {
            ensure!(
                Instant::now() < end && self.prometheus.is_running(),
                "{lacking}\n{}\n{}",
                self.prometheus.log(),
                self.agent.process().log()
            );
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// Starts an agent, with the network plugin on or off.
fn start_agent(lab: &Lab, plugin: &str) -> Result<Agent> {
    let path = |name: &str| lab.path().join(name).display().to_string();
    let flags = [
        "--http",
        &format!("0.0.0.0:{METRICS}"),
        "--cni-conf-dir",
        &path("lists"),
        "--cni-bin-dir",
        &path("programs"),
        "--cni-plugin",
        plugin,
    ];
    let kubeconfig = lab.path().join("kubeconfig");
    Agent::start_watching(lab, NODE, &Agent::program()?, &kubeconfig, &flags)
}

/// Starts one on the host outside, with the alerts of the chart, each raised at once.
fn start_prometheus(lab: &Lab, target: SocketAddr) -> Result<Process> {
    let folder = lab.path().join("prometheus");
    fs::create_dir(&folder)?;
    let configuration = json!({
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{
            "job_name": "palisade",
            "static_configs": [{
                "targets": [target.to_string()],
                "labels": {"node": NODE, "namespace": "kube-system"},
            }],
        }],
    });
    let file = folder.join("prometheus.yaml");
    fs::write(&file, configuration.to_string())?;
    let alerts = fs::read_to_string(at(ALERTS))?;
    let impatient = alerts.lines().map(|line| match line.split_once("for: ") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}for: 0s\n"),
        _ => format!("{line}\n"),
    });
    fs::write(folder.join("alerts.yaml"), impatient.collect::<String>())?;
    let internet = lab.endpoint("internet").context("a host outside")?;
    let mut command = internet.namespace.command(program("prometheus")?);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    lab.start(command, "prometheus.log")
}

fn namespace(annotations: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "x", "annotations": annotations},
    })
}

fn pod(name: &str, addresses: &[String]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": addresses[0]["ip"], "podIPs": addresses},
    })
}

/// The server takes connections of those pods alone.
fn policy(app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "server", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}],
        },
    })
}

/// The queries of the dashboard's panels, as Grafana would ask them of everything.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(at(DASHBOARD))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().context("a target asks nothing")?;
        let query = query
            .replace("$namespace", ".*")
            .replace("$node", ".*")
            .replace("$__rate_interval", "10s");
        ensure!(!query.contains('$'), "{query}");
        Ok(query)
    });
    queries.collect()
}

/// A cluster, and the site in it once it is enforced.
fn with_site(test: impl FnOnce(&mut Site, &mut Objects<'_>) -> Result<()>) -> Result<()> {
    if skip_without_root() || skip_without_assets() || skip_without("prometheus") {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    let mut site = Site::at(&control_plane, &mut objects)?;
    let end = Instant::now() + READY;
    while site.reaches("other")? || !site.reaches("client")? {
        let log = site.agent.process();
        ensure!(Instant::now() < end, "not enforced\n{}", log.log());
    }
    test(&mut site, &mut objects)
}

#[test]
fn every_query_of_the_dashboard_brings_data_and_a_pod_that_is_not_enforced_raises_its_alert()
-> Result<()> {
    with_site(|site, objects| {
        let queries = queries()?;
        ensure!(queries.len() > 25, "{queries:?}");
        site.wait(|site| {
            // Traffic of both kinds, so that there is something to show.
            site.reaches("other")?;
            site.reaches("client")?;
            for query in &queries {
                if site.query(query)?.is_empty() {
                    return Ok(Some(format!("no data: {query}")));
                }
            }
            Ok(None)
        })?;
        let denied = "palisade_verdict_packets_total{verdict='denied', reason='policy', direction='ingress'}";
        site.wait(|site| {
            site.reaches("other")?;
            let found = site.query(&format!("rate({denied}[10s])"))?;
            let grows = matches!(&*found, [(_, rate)] if *rate > 0.0);
            Ok((!grows).then(|| format!("{denied}: {found:?}")))
        })?;
        site.expect("palisade_pods{state='unenforced'}", 1.0)?;
        site.expect("palisade_pods{state='enforced'}", 3.0)?;
        site.expect("palisade_condition{condition='source'}", 1.0)?;
        let series = site.query("scrape_samples_scraped")?;
        let (_, series) = series.first().context("nothing is scraped")?;
        println!("an agent has {series} series");
        ensure!(*series < SERIES, "{series} series");

        // Each rule was asked, and the one that has a reason is raised.
        site.wait(|site| {
            let rules = site.ask("/api/v1/rules")?.unwrap_or_default();
            let groups = rules["groups"].as_array().into_iter().flatten();
            let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let rules: Vec<_> = rules.collect();
            let asked = rules.iter().filter(|rule| rule["health"] == "ok").count();
            let firing: BTreeSet<_> = rules
                .iter()
                .filter(|rule| rule["state"] == "firing")
                .filter_map(|rule| rule["name"].as_str())
                .collect();
            let expected = firing == ["PalisadePodsNotEnforced"].into();
            let all = rules.len() > 5 && asked == rules.len();
            Ok(
                (!all || !expected)
                    .then(|| format!("{asked} of {} asked, {firing:?}", rules.len())),
            )
        })?;
        // And not any more when it has none.
        objects.delete(&pod("ghost", &["10.244.99.99".to_owned()]))?;
        site.wait(|site| {
            let raised = site.query("ALERTS{alertname='PalisadePodsNotEnforced'}")?;
            Ok((!raised.is_empty()).then(|| format!("{raised:?}")))
        })
    })
}

#[test]
fn what_is_in_audit_and_when_the_server_was_heard_and_whether_the_plugin_is_missing_is_measured()
-> Result<()> {
    with_site(|site, objects| {
        for (scope, value) in [("mode", 0.0), ("pause", 0.0), ("namespaces", 0.0)] {
            site.expect(&format!("palisade_audit{{scope='{scope}'}}"), value)?;
        }
        objects.apply(&namespace(json!({"palisade/mode": "audit"})))?;
        site.expect("palisade_audit{scope='namespaces'}", 1.0)?;
        objects.apply(&namespace(json!({"palisade/mode": "enforce"})))?;
        site.expect("palisade_audit{scope='namespaces'}", 0.0)?;
        site.pause(&["--for", "1h"])?;
        site.expect("palisade_audit{scope='pause'}", 1.0)?;
        site.pause(&["--end"])?;
        site.expect("palisade_audit{scope='pause'}", 0.0)?;

        // A watch that is opened anew is heard of, though there is no news and nothing is listed.
        let heard = "palisade_watch_last_event_timestamp_seconds{kind='Service'}";
        let lists = "palisade_watch_lists_total{kind='Service'}";
        let before = site.query(heard)?;
        let (_, before) = before.first().context("the server was not heard")?;
        site.relay.cut();
        site.wait(|site| {
            let now = site.query(heard)?;
            let moved = matches!(&*now, [(_, now)] if now > before);
            Ok((!moved).then(|| format!("{before}, then {now:?}")))
        })?;
        site.expect(lists, 1.0)?;

        site.expect("palisade_plugin_installed", 1.0)?;
        site.agent.process().signal(Signal::TERM)?;
        site.agent.process().wait(READY)?;
        site.agent = start_agent(&site.lab, "off")?;
        site.wait(|site| {
            let plugin = site.agent.status().ok().and_then(|status| status.plugin);
            let off = plugin.as_ref().is_some_and(|it| !it.wanted);
            Ok((!off).then(|| format!("{plugin:?}")))
        })?;
        // What the agent says of itself follows within a second.
        let since = site.query("vector(time())")?;
        let (_, since) = since.first().context("no time")?;
        site.expect(
            &format!("timestamp(palisade_build_info) > bool {since} + 2"),
            1.0,
        )?;
        assert_eq!(site.query("palisade_plugin_installed")?, []);
        Ok(())
    })
}
