//! What is there: `palisade pods` and its siblings beside an agent and real packets.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    desk::{Desk, NODE, PORT, pod, until},
    skip_without_root,
};
use serde_json::{Value, json};

/// Changes maps behind the agent's back.
fn bpftool(desk: &Desk, words: &str) -> Result<()> {
    let maps = desk.maps()?;
    let words = words.replace("MAPS", maps.to_str().context("UTF-8")?);
    let done = Command::new("bpftool")
        .args(words.split_whitespace())
        .output()?;
    ensure!(done.status.success(), "{words}: {done:?}");
    Ok(())
}

#[test]
fn pods_are_shown_with_their_policies_packets_and_live_flows() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(PORT, &[])?;
    site.knock("client", 1)?;
    site.knock("other", 1)?;
    let all = site.json("pods")?;
    let names: Vec<_> = all["pods"]
        .as_array()
        .context("pods")?
        .iter()
        .map(|pod| &pod["name"])
        .collect();
    assert_eq!(names, ["client", "other", "pending", "server"]);
    let of = |name: usize, path: &str| all["pods"][name].pointer(path).cloned().unwrap_or_default();
    assert_eq!(of(3, "/node"), NODE);
    assert_eq!(of(3, "/ingress/policies"), json!(["allow-client"]));
    ensure!(
        of(3, "/packets/ingress/denied/policy").as_u64() >= Some(1),
        "{all}"
    );
    ensure!(
        of(3, "/packets/ingress/deniedBytes").as_u64() >= Some(60),
        "{all}"
    );
    ensure!(
        of(3, "/packets/ingress/allowed").as_u64() >= Some(2),
        "{all}"
    );
    assert_eq!(of(0, "/packets/ingress/denied"), json!({}));
    // One connection, which is one flow of each end; what was denied has none.
    assert_eq!(
        (of(0, "/liveFlows"), of(3, "/liveFlows")),
        (json!(1), json!(1)),
        "{all}"
    );
    assert_eq!(of(1, "/liveFlows"), 0, "{all}");
    assert_eq!(
        (of(2, "/enforced"), of(2, "/packets")),
        (json!(false), Value::Null)
    );

    let text = site.text("pods x/server")?;
    ensure!(text.lines().count() == 2, "{text}");
    ensure!(text.contains(" policy "), "{text}");
    ensure!(
        site.text("pods x/pending")?
            .contains("no: it has no address yet")
    );
    let wide = site.text("pods -n x -o wide")?;
    ensure!(
        wide.contains("veth-x-server") && wide.contains("LIVE FLOWS"),
        "{wide}"
    );
    assert_eq!(site.text("pods -n nowhere")?, "");
    assert_eq!(site.palisade("pods x/nobody")?.status.code(), Some(1));
    assert_eq!(site.palisade("pods nobody")?.status.code(), Some(2));
    Ok(())
}

#[test]
fn policies_say_what_their_rules_allowed_and_what_they_denied() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(PORT, &["--allowed-flows", "on"])?;
    let policy =
        || Ok::<_, anyhow::Error>(site.json("policies x/allow-client")?["policies"][0].clone());
    let before = policy()?;
    assert_eq!(
        before["rules"][0]["allowed"],
        json!({"flows": 0, "last": null})
    );
    assert_eq!(
        (&before["pods"], &before["rules"][0]["peers"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&before["isolates"], &before["warnings"]),
        (&json!(["ingress"]), &json!([]))
    );
    for _ in 0..2 {
        site.knock("client", 1)?;
    }
    site.knock("other", 1)?;
    until("what was allowed and denied is not counted", || {
        let policy = policy()?;
        let allowed = &policy["rules"][0]["allowed"];
        let denied = &policy["denied"];
        Ok(allowed["flows"] == 2
            && allowed["last"].is_string()
            && denied["flows"].as_u64() >= Some(1))
    })?;
    let text = site.text("policies")?;
    ensure!(text.contains("ingress[0]   1 pod      2 allowed"), "{text}");
    ensure!(!text.contains("not known"), "{text}");
    assert_eq!(site.palisade("policies x/nobody")?.status.code(), Some(1));
    // A report takes the same counts for use.
    let report = format!("report --manifests {}", site.manifests.folder().display());
    let usage = site.json(&report)?["policies"][0]["usage"].clone();
    assert_eq!(usage["state"], "used", "{usage}");
    ensure!(usage["flows"].as_u64() >= Some(3), "{usage}");
    Ok(())
}

#[test]
fn where_allowed_flows_are_not_told_of_it_is_not_known_which_rules_allowed_them() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(PORT, &[])?;
    site.knock("client", 1)?;
    let all = site.json("policies")?;
    assert_eq!(all["policies"][0]["rules"][0]["allowed"], Value::Null);
    ensure!(all["spans"][0].get("allowedSince").is_none(), "{all}");
    let text = site.text("policies")?;
    ensure!(text.contains("not known on node1: "), "{text}");
    Ok(())
}

#[test]
fn what_the_kernel_would_decide_is_read_in_the_maps_and_held_against_policy() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Desk::new(PORT, &["--verify-seconds", "3600"])?;
    let mut far = pod("far", &["10.99.0.1".to_owned()]);
    far["spec"]["nodeName"] = json!("elsewhere");
    far["metadata"]["labels"] = json!({"app": "client"});
    site.manifests.apply(&far)?;
    let ask = |from: &str, more: &str| {
        site.palisade(&format!(
            "explain --live --from {from} --to x/server {more}"
        ))
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    until("the far pod is not known", || {
        Ok(ask("x/far", "")?.status.code() == Some(1))
    })?;
    for (from, port, code, verdict) in [
        ("x/client", "8080", 0, "the cell of the class: allowed"),
        ("x/client", "8081", 1, "the cell of the class: denied"),
        ("x/other", "8080", 1, ": denied"),
        (
            "192.0.2.1",
            "8080",
            1,
            "class 0 (no peer list has it), the cell of the default: denied",
        ),
    ] {
        let output = ask(from, &format!("--port {port}"))?;
        let text = said(&output);
        ensure!(
            output.status.code() == Some(code),
            "{from} {port}: {output:?}"
        );
        ensure!(
            text.contains(verdict) && !text.contains("differs"),
            "{text}"
        );
    }
    let everything = said(&ask("x/client", "")?);
    ensure!(everything.contains("passes: TCP 8080\n"), "{everything}");
    ensure!(
        everything.contains("table 1, which is for all: passes: everything"),
        "{everything}"
    );
    let far = said(&ask("x/far", "--port 8080")?);
    ensure!(
        far.contains("not known: it is on node elsewhere: ask the agent there"),
        "{far}"
    );
    ensure!(far.contains("the cell of the class: allowed"), "{far}");

    // Somebody lets everybody in: the table's default allows all.
    let allow = "1 0 0 0 ".repeat(4);
    bpftool(
        &site,
        &format!("map update pinned MAPS/TABLES key 2 0 0 0 value {allow}"),
    )?;
    let output = ask("x/other", "--port 8080")?;
    let text = said(&output);
    ensure!(output.status.code() == Some(4), "{output:?}");
    let differs =
        "the kernel differs: ingress of x/server: policy does not allow it, and the maps do\n";
    ensure!(text.ends_with(differs), "{text}");
    let json = ask("x/other", "--port 8080 -o json")?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(json["allowed"], false);
    assert_eq!(json["ingress"]["live"]["found"]["allowed"], true);
    ensure!(
        ask("x/client", "--port 8080")?.status.code() == Some(0),
        "its own cell is as it was"
    );
    // And nobody looks at what is not asked.
    let without = site.palisade("explain --from x/other --to x/server --port 8080")?;
    assert_eq!(without.status.code(), Some(1));

    // Somebody takes the client's address away.
    let address = site
        .lab
        .pod("x/client")
        .endpoint
        .address(4)
        .context("IPv4")?;
    let key = address.to_string().replace('.', " ");
    bpftool(&site, &format!("map delete pinned MAPS/PEERS_V4 key {key}"))?;
    bpftool(
        &site,
        &format!(
            "map update pinned MAPS/TABLES key 2 0 0 0 value {}",
            "0 ".repeat(16)
        ),
    )?;
    let output = ask("x/client", "--port 8080")?;
    ensure!(output.status.code() == Some(4), "{output:?}");
    let text = said(&output);
    let differs =
        "the kernel differs: ingress of x/server: policy allows it, and the maps do not\n";
    ensure!(text.ends_with(differs), "{text}");
    Ok(())
}
