//! `palisade check` on a node, before and after somebody else has come.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    skip_without_root,
};
use serde_json::Value;

const NODE: &str = "node1";
const LIST: &str =
    r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"ptp"},{"type":"portmap"}]}"#;

/// Severity and message of each check, and how the command ends.
type Found = (Option<i32>, BTreeMap<String, (String, String)>);

fn check(lab: &Lab, bpffs: &Path, cni: &Path) -> Result<Found> {
    let namespace = &lab.node(NODE).endpoint.namespace;
    let mut command = namespace.command(Agent::program()?);
    command
        .args(["check", "--output=json", "--bpffs"])
        .arg(bpffs);
    let output = command.arg("--cni-conf-dir").arg(cni).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = checks.iter().map(|check| {
        let what = (text(&check["severity"]), text(&check["message"]));
        (text(&check["name"]), what)
    });
    Ok((output.status.code(), found.collect()))
}

fn on_node(lab: &Lab, words: &str) -> Result<()> {
    let words: Vec<_> = words.split(' ').collect();
    let (program, arguments) = words.split_first().context("no command")?;
    let namespace = &lab.node(NODE).endpoint.namespace;
    namespace.output(program, arguments, "").map(drop)
}

#[test]
fn others_are_named_and_do_no_harm_and_what_is_missing_does() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    lab.add_pod("x/a", NODE)?;
    let manifests = Manifests::create(&lab.path().join("manifests"))?;
    let mut agent = Agent::start(&lab, NODE, &Agent::program()?, manifests.folder(), &[])?;
    agent.wait_until_ready(std::time::Duration::from_secs(20))?;
    let bpffs = lab.bpffs().join(NODE);
    let cni = lab.path().join("cni");
    fs::create_dir(&cni)?;
    fs::write(cni.join("10-a.conflist"), LIST)?;

    let (code, found) = check(&lab, &bpffs, &cni)?;
    ensure!(code == Some(0), "{found:?}");
    for (name, (severity, message)) in &found {
        ensure!(severity == "ok", "{name}: {message}");
    }
    // The agent's own are none of others.
    ensure!(found["programs"].1.starts_with("none"), "{found:?}");
    ensure!(
        found["cni"].1 == "a (ptp, portmap) of 10-a.conflist",
        "{found:?}"
    );
    ensure!(found["kube-proxy"].1 == "none seen", "{found:?}");

    on_node(&lab, "nft add table inet kindnet-network-policies")?;
    on_node(&lab, "nft add table ip nat")?;
    on_node(&lab, "nft add chain ip nat KUBE-SERVICES")?;
    on_node(&lab, "tc qdisc add dev veth-x-a clsact")?;
    // It matches nothing.
    let code = lab.path().join("code");
    fs::write(&code, "1,6 0 0 0,")?;
    let filter = format!(
        "tc filter add dev veth-x-a ingress bpf bytecode-file {}",
        code.display()
    );
    on_node(&lab, &filter)?;
    let (code, found) = check(&lab, &bpffs, &cni)?;
    ensure!(code == Some(0), "warnings do no harm: {found:?}");
    for (name, word) in [
        ("enforcers", "kindnet (table kindnet-network-policies)"),
        ("programs", "veth-x-a at clsact ingress (bpf)"),
    ] {
        let (severity, message) = &found[name];
        ensure!(severity == "warning", "{name}: {message}");
        ensure!(message.contains(word), "{name}: {message}");
    }
    ensure!(found["kube-proxy"].1 == "iptables", "{found:?}");

    let (code, found) = check(&lab, Path::new("/proc/palisade"), &lab.path().join("no"))?;
    ensure!(code == Some(1), "{found:?}");
    ensure!(found["bpffs"].0 == "error", "{found:?}");
    ensure!(found["cni"].0 == "warning", "{found:?}");
    Ok(())
}
