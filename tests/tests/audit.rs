//! Audit with real agents and packets: what passes, what is told of it, and that it ends.

use std::{
    net::SocketAddr,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use palisade_tests::{
    agent::Agent,
    lab::Cni,
    probe::{Ports, Stream},
    site::{READY, SETTLE, Site, TARGET, by_both, nothing, only_from, pod},
    skip_without_root,
};
use serde_json::{Value, json};

/// The namespace of all pods, with these annotations.
fn namespace(annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "x", "annotations": annotations},
    })
}

fn annotated(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

/// Whether `near-bad` reaches the client, whose policy lets good pods alone.
fn expect(site: &Site, what: &str, bad: bool) -> Result<()> {
    let to = site.pod("client", 4)?;
    let answers = bad.then_some("client");
    let mut cases = by_both("near-bad", to, TARGET, answers).to_vec();
    cases.extend(by_both("far-bad", to, TARGET, answers));
    cases.extend(by_both("near-good", to, TARGET, Some("client")));
    site.expect(what, &cases)
}

fn run(site: &Site, command: &str, words: &str) -> Result<Output> {
    let node = &site.lab.node("node1").endpoint.namespace;
    let mut program = node.command(Agent::program()?);
    program.arg(command).args(words.split_whitespace());
    program.arg("--socket").arg(site.agents[0].socket());
    program.output().with_context(|| command.to_owned())
}

/// The flows that the first node's agent tells of.
fn flows(site: &Site, words: &str) -> Result<Vec<Value>> {
    let output = run(site, "flows", &format!("-o json --since 1h {words}"))?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

#[test]
fn a_namespace_in_audit_denies_nothing_and_tells_what_it_would() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_from("client", "good"))?;
    expect(&site, "enforced", false)?;
    assert_eq!(flows(&site, "--verdict audited")?, [Value::Null; 0]);
    site.manifests
        .apply(&namespace(json!({"palisade/mode": "audit"})))?;
    expect(&site, "in audit", true)?;
    let end = Instant::now() + SETTLE;
    let told = loop {
        // A datagram of a flow from before the policy would have been cut by it, and is told as that.
        let told = flows(
            &site,
            "--verdict audited --reason policy --from-pod x/near-bad",
        )?;
        if let Some(last) = told.last() {
            break last.clone();
        }
        ensure!(Instant::now() < end, "nothing is told");
        // What is denied in the same second may have used up what is told of.
        site.ask(&by_both("near-bad", site.pod("client", 4)?, TARGET, None))?;
    };
    assert_eq!(told["reason"], "policy");
    assert_eq!(told["policies"], json!(["only-from"]));
    assert_eq!(told["audited"], json!(["only-from"]));
    assert_eq!(told["miss"]["policy"], "only-from");
    assert_eq!(told["peer"]["labels"]["role"], "bad");
    assert_eq!(
        flows(&site, "--verdict audited --from-pod x/near-good")?,
        [Value::Null; 0]
    );
    let audit = run(&site, "audit", "")?;
    let text = String::from_utf8(audit.stdout)?;
    ensure!(text.starts_with("x/only-from would cut, "), "{text}");
    ensure!(text.contains("x/app=near-bad,role=bad"), "{text}");
    ensure!(!text.contains("near-good"), "{text}");
    let status = site.agents[0].status()?;
    assert_eq!(status.audit.namespaces[0].namespace, "x");
    let client = status.pods.iter().find(|pod| pod.name == "client");
    assert_eq!(client.context("the client")?.ingress.audited, ["only-from"]);
    site.manifests.apply(&namespace(json!({})))?;
    expect(&site, "enforced again", false)
}

#[test]
fn audit_comes_and_goes_without_a_lost_or_a_leaked_packet() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    // One policy is enforced throughout; the other is staged, and is not.
    site.manifests.apply(&nothing("near-good", "Ingress"))?;
    let to = site.pod("near-good", 4)?;
    site.expect("enforced", &by_both("near-bad", to, TARGET, None))?;
    let at = |name: &str| &site.lab.pod(&format!("x/{name}")).endpoint;
    let (client, good, bad) = (at("client"), at("near-good"), at("near-bad"));
    let allowed = Stream::start(good, client, 4, 9001, 1000, Ports::Fresh)?;
    let denied = Stream::start(bad, good, 4, 9002, 1000, Ports::Fresh)?;
    let staged = annotated(
        only_from("client", "nobody"),
        json!({"palisade/mode": "audit"}),
    );
    for _ in 0..5 {
        site.manifests.apply(&staged)?;
        thread::sleep(Duration::from_millis(200));
        site.manifests.delete(&staged)?;
        thread::sleep(Duration::from_millis(200));
    }
    let (allowed, denied) = (allowed.stop()?, denied.stop()?);
    let (lost, leaked) = (allowed.lost(), denied.leaked());
    ensure!(lost == 0, "lost {lost} of {}", allowed.sent.len());
    ensure!(leaked == 0, "leaked {leaked} of {}", denied.sent.len());
    let told = flows(&site, "--verdict audited --from-pod x/near-good")?;
    ensure!(!told.is_empty(), "what the staged policy would cut is told");
    assert_eq!(told[0]["audited"], json!(["only-from"]));
    Ok(())
}

#[test]
fn a_pod_chooses_its_mode_where_its_namespace_lets_it() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    let addresses = site.lab.pod("x/client").endpoint.addresses.clone();
    let client = pod("client", "node1", &addresses, "client");
    let client = annotated(client, json!({"palisade/mode": "audit"}));
    site.manifests.apply(&client)?;
    site.manifests.apply(&only_from("client", "good"))?;
    expect(&site, "nobody lets it", false)?;
    site.manifests
        .apply(&namespace(json!({"palisade/pod-mode": "allowed"})))?;
    expect(&site, "its namespace lets it", true)?;
    site.manifests.apply(&namespace(json!({})))?;
    expect(&site, "not any more", false)
}

#[test]
fn a_pause_outlives_the_agent_and_ends() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_from("client", "good"))?;
    expect(&site, "enforced", false)?;
    let paused = run(&site, "pause", "--for 1h")?;
    ensure!(paused.status.success(), "{paused:?}");
    expect(&site, "paused", true)?;
    // Another agent goes on with it.
    site.agents[0].process().kill()?;
    let folder = site.manifests.folder().to_owned();
    let mut agent = Agent::start(&site.lab, "node1", &Agent::program()?, &folder, &[])?;
    agent.wait_until_ready(READY)?;
    site.agents[0] = agent;
    ensure!(site.agents[0].status()?.audit.paused_until.is_some());
    expect(&site, "paused with its successor", true)?;
    let ended = run(&site, "pause", "--end")?;
    ensure!(ended.status.success(), "{ended:?}");
    expect(&site, "ended", false)?;
    assert_eq!(run(&site, "pause", "")?.status.code(), Some(2));
    // A namespace's ends by itself.
    let until = Timestamp::now().checked_add(5.seconds())?;
    site.manifests.apply(&namespace(
        json!({"palisade/mode": "audit", "palisade/mode-until": until.to_string()}),
    ))?;
    let to = SocketAddr::new(site.pod("client", 4)?, TARGET);
    let end = Instant::now() + SETTLE;
    let mut passed = false;
    loop {
        let probe = ("near-bad", to, palisade_tests::probe::Protocol::Tcp, None);
        let answered = site.ask(&[probe])?[0].is_some();
        passed |= answered;
        if passed && !answered {
            break;
        }
        ensure!(Instant::now() < end, "it has not ended");
    }
    ensure!(Timestamp::now() >= until, "it has ended early");
    expect(&site, "ended by itself", false)
}

#[test]
fn the_flow_log_has_a_line_for_what_is_denied() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_from("client", "good"))?;
    expect(&site, "enforced", false)?;
    let agent = &mut site.agents[0];
    agent
        .process()
        .wait_for_log("\"schema\":\"palisade.flow/v1\"", SETTLE)?;
    let log = agent.process().log();
    let lines = log.lines().filter(|line| line.contains("palisade.flow/v1"));
    for line in lines {
        let line: Value = serde_json::from_str(line)?;
        assert_eq!(line["node"], "node1");
        assert_eq!(line["verdict"], "denied");
        assert_eq!(line["policies"], json!(["only-from"]), "{line}");
        ensure!(line["packets"].as_u64() >= Some(1), "{line}");
    }
    Ok(())
}
