//! `palisade flows` beside an agent and real packets.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    desk::{Desk, PATIENCE, PORT, until},
    skip_without_root,
};
use serde_json::Value;

#[test]
fn a_denied_packet_is_shown_with_the_policy_and_the_rule_that_comes_nearest() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(9090, &[])?;
    assert_eq!(site.text("flows")?, "");
    let end = Instant::now() + PATIENCE;
    site.knock("client", 1)?;
    site.knock("other", 1)?;
    while site.text("flows --from-pod x/other")?.is_empty() {
        ensure!(Instant::now() < end, "nothing is shown");
        thread::sleep(Duration::from_millis(20));
    }
    let text = site.text("flows --from-pod x/client --last 1")?;
    ensure!(text.lines().count() == 1, "{text}");
    let to = format!(
        "-> x/server:{PORT} TCP DENIED at ingress by allow-client; nearest is allow-client ingress[0]: "
    );
    ensure!(text.contains(&to), "{text}");
    let wide = site.text("flows --from-pod x/client --last 1 -o wide")?;
    let address = site
        .lab
        .pod("x/client")
        .endpoint
        .address(4)
        .context("IPv4")?;
    ensure!(wide.contains(&format!("x/client ({address})")), "{wide}");
    let json = site.text("flows --since 1m -o json --not from-pod=x/client")?;
    for line in json.lines() {
        let flow: Value = serde_json::from_str(line)?;
        assert_eq!(flow["peer"]["pod"], "other");
        assert_eq!(flow["miss"]["policy"], "allow-client");
    }
    ensure!(!json.is_empty());
    assert_eq!(site.text("flows --to-pod x/client")?, "");
    assert_eq!(site.text("flows --verdict allowed")?, "");
    assert_eq!(site.palisade("flows --port http")?.status.code(), Some(2));
    let nowhere = site.palisade("flows --socket /run/nowhere.sock")?;
    assert_eq!(nowhere.status.code(), Some(3));
    Ok(())
}

#[test]
fn what_comes_is_followed_and_what_is_lost_is_said() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(9090, &[])?;
    site.knock("other", 1)?;
    let follow = site.command("flows --follow --from-pod x/client")?;
    let log = "flows.log";
    let mut process = site.lab.start(follow, log)?;
    // It begins with what comes after it has looked once.
    thread::sleep(Duration::from_secs(1));
    site.knock("client", 1)?;
    process.wait_for_log("x/client:", PATIENCE)?;
    // More of a kind than events tell of.
    site.knock("client", 100)?;
    process.wait_for_log("EVENTS LOST: ", PATIENCE)?;
    ensure!(process.is_running());
    let text = fs::read_to_string(site.lab.path().join(log))?;
    ensure!(!text.contains("x/other"), "{text}");
    Ok(())
}

#[test]
fn allowed_flows_are_told_of_for_as_long_as_somebody_asks() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Desk::new(PORT, &[])?;
    site.knock("client", 1)?;
    let allowed = || site.text("flows --verdict allowed -o json");
    assert_eq!(allowed()?, "");
    site.text("flows --allowed")?;
    site.knock("client", 1)?;
    // Both ends have a say.
    until("it is told of", || Ok(allowed()?.lines().count() == 2))?;
    for line in allowed()?.lines() {
        let flow: Value = serde_json::from_str(line)?;
        let rules = &flow["rules"];
        match flow["direction"].as_str() {
            Some("ingress") => assert_eq!(rules[0]["policy"], "allow-client"),
            other => assert_eq!((other, rules), (Some("egress"), &Value::Null)),
        }
    }
    // Nobody has asked for longer than that.
    thread::sleep(Duration::from_secs(12));
    let before = allowed()?;
    site.knock("client", 1)?;
    site.knock("other", 1)?;
    until("others are told of", || {
        Ok(!site.text("flows --from-pod x/other")?.is_empty())
    })?;
    assert_eq!(allowed()?, before);
    Ok(())
}
