//! What others remove and add beside an agent at work, while streams run.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade::api::proto::Status;
use palisade_dataplane::{caps::has_tcx, netlink::Hook};
use palisade_tests::{
    agent::Agent,
    lab::Cni,
    probe::{Ports, Stream},
    rig::Foreign,
    skip_without_root,
    trial::{ANSWER, NODE, Trial},
};

/// How long it may take until the agent has looked: every quarter of a minute.
const LOOKED: Duration = Duration::from_secs(40);
/// Between two looks at its status.
const POLL: Duration = Duration::from_millis(20);
/// How soon a filter that is taken off is back, of which the kernel tells.
const AT_ONCE: Duration = Duration::from_secs(2);

fn until(agent: &Agent, what: &str, holds: impl Fn(&Status) -> bool) -> Result<()> {
    let deadline = Instant::now() + LOOKED;
    loop {
        let status = agent.status()?;
        if holds(&status) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: {status:#?}");
        thread::sleep(POLL);
    }
}

/// Everything that is pinned below a folder.
fn pins(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(pins(&entry.path())?);
        } else {
            all.push(entry.path());
        }
    }
    all.sort_unstable();
    Ok(all)
}

#[test]
fn pins_that_are_removed_are_put_back_without_a_gap() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let trial = Trial::new(Cni::Ptp)?;
    let program = Agent::program()?;
    let mut agent = trial.ready(&program, &[])?;
    let mut streams = trial.streams()?;
    let folder = trial.lab.bpffs().join(NODE);
    let before = pins(&folder)?;
    ensure!(before.len() > 20, "{before:?}");
    for pin in &before {
        fs::remove_file(pin)?;
    }
    let tcx = agent.status()?.attach == "tcx";
    until(&agent, "pins", |status| {
        status.drift.pins >= 20 && (!tcx || status.drift.programs > 0)
    })?;
    let deadline = Instant::now() + LOOKED;
    while pins(&folder)? != before {
        ensure!(Instant::now() < deadline, "{:?}", pins(&folder)?);
        thread::sleep(POLL);
    }
    ensure!(streams.open.works(ANSWER), "a connection was cut");
    // Policy outlives the agent as before.
    agent.process().kill()?;
    thread::sleep(ANSWER);
    let agent = trial.ready(&program, &[])?;
    ensure!(
        agent.status()?.drift == Default::default(),
        "the next finds it whole"
    );
    streams.judge("pins were removed")
}

#[test]
fn filters_that_are_taken_off_are_put_back_at_once() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let trial = Trial::new(Cni::Ptp)?;
    let agent = trial.ready(&Agent::program()?, &["--attach", "clsact"])?;
    let node = &trial.lab.node(NODE).endpoint.namespace;
    let (from, to) = (trial.endpoint("other"), trial.endpoint("server"));
    let pod = trial.lab.pod("x/server").interface.clone();
    for (number, arguments) in [
        vec!["qdisc", "del", "dev", &pod, "clsact"],
        vec!["filter", "del", "dev", &pod, "egress"],
    ]
    .into_iter()
    .enumerate()
    {
        let denied = Stream::start(from, to, 4, 9004 + number as u16, 1000, Ports::Fresh)?;
        thread::sleep(ANSWER);
        let removed = Instant::now();
        node.output("tc", &arguments, "")?;
        until(&agent, "a filter", |status| {
            status.drift.programs > number as u64
        })?;
        thread::sleep(ANSWER);
        let loss = denied.stop()?;
        let leaked = loss.leaked();
        let last = loss
            .last_leak()
            .map(|last| last.saturating_duration_since(removed));
        println!(
            "{arguments:?}: {leaked} of {} leaked, for {last:?}",
            loss.sent.len()
        );
        ensure!(
            last.is_none_or(|last| last < AT_ONCE),
            "{arguments:?}: {last:?}"
        );
        let (sent, before) = loss.between(loss.sent[0], removed);
        ensure!(sent > 0 && before == 0, "{before} leaked before");
    }
    Ok(())
}

/// How soon a link is back that is detached: it is looked for every second, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn links_that_are_detached_are_put_back_soon() -> Result<()> {
    let Some((trial, agent)) = with_links(&[])? else {
        return Ok(());
    };
    let (from, to) = (trial.endpoint("other"), trial.endpoint("server"));
    let link = format!("links/{}-egress", trial.lab.pod("x/server").index);
    let link = trial.lab.bpffs().join(NODE).join(link);
    let denied = Stream::start(from, to, 4, 9004, 1000, Ports::Fresh)?;
    thread::sleep(ANSWER);
    let removed = Instant::now();
    let mut bpftool = Command::new("bpftool");
    let done = bpftool
        .args(["link", "detach", "pinned"])
        .arg(link)
        .output()?;
    ensure!(done.status.success(), "{done:?}");
    until(&agent, "a link", |status| status.drift.programs > 0)?;
    thread::sleep(ANSWER);
    let loss = denied.stop()?;
    let last = loss.last_leak().context("nothing leaked")?;
    let last = last.saturating_duration_since(removed);
    println!(
        "{} of {} leaked, for {last:?}",
        loss.leaked(),
        loss.sent.len()
    );
    ensure!(last < SOON, "{last:?}");
    Ok(())
}

/// A trial under an agent that holds its programs by links; none where the kernel has no TCX.
fn with_links(arguments: &[&str]) -> Result<Option<(Trial, Agent)>> {
    if skip_without_root() {
        return Ok(None);
    }
    if !has_tcx()? {
        println!("SKIP: no TCX (Linux 6.6, commit e420bed02507)");
        return Ok(None);
    }
    let trial = Trial::new(Cni::Ptp)?;
    let arguments = [&["--attach", "tcx"], arguments].concat();
    let agent = trial.ready(&Agent::program()?, &arguments)?;
    Ok(Some((trial, agent)))
}

/// Every hook of a node that carries a program.
fn hooks(status: &Status) -> Vec<(u32, Hook)> {
    let pods = status.pods.iter().filter_map(|pod| pod.ifindex);
    let pods = pods.flat_map(|ifindex| [(ifindex, Hook::Ingress), (ifindex, Hook::Egress)]);
    let exits = status.exits.iter().map(|exit| (exit.ifindex, Hook::Egress));
    pods.chain(exits).collect()
}

fn runs_before(status: &Status, (ifindex, hook): (u32, Hook)) -> bool {
    let mut foreign = status.foreign.iter();
    foreign.any(|it| it.before && it.ifindex == ifindex && it.hook == hook.to_string())
}

#[test]
fn ours_run_first_again_without_a_gap_and_give_up_on_whoever_insists() -> Result<()> {
    const MOVES: u64 = 3;
    let Some((trial, agent)) = with_links(&[])? else {
        return Ok(());
    };
    let node = &trial.lab.node(NODE).endpoint.namespace;
    let hooks = hooks(&agent.status()?);
    let (&quiet, insisting) = hooks.split_first().context("no hooks")?;
    ensure!(insisting.len() > 5, "{hooks:?}");
    let streams = trial.streams()?;
    let all = insisting.len() as u64;
    for round in 1..=MOVES {
        let others: Vec<_> = node.run(|| {
            let all = insisting.iter();
            all.map(|&(ifindex, hook)| Foreign::idle_before(ifindex, hook))
                .collect()
        });
        until(&agent, "the order", |status| {
            status.drift.positions == round * all
        })?;
        let status = agent.status()?;
        ensure!(status.foreign.len() == others.len(), "{status:#?}");
        ensure!(!status.foreign.iter().any(|it| it.before), "{status:#?}");
        ensure!(status.drift.programs == 0, "{:?}", status.drift);
    }
    // Of another hook is seen that the agent has looked at all of them.
    let last = node.run(|| {
        let others = hooks.iter();
        let others: Vec<_> = others
            .map(|&(ifindex, hook)| Foreign::idle_before(ifindex, hook))
            .collect();
        others
    });
    until(&agent, "another hook", |status| {
        status.drift.positions > MOVES * all
    })?;
    let status = agent.status()?;
    ensure!(!runs_before(&status, quiet), "{status:#?}");
    for &place in insisting {
        ensure!(runs_before(&status, place), "{place:?}: {status:#?}");
    }
    ensure!(status.drift.positions == MOVES * all + 1, "{status:#?}");
    drop(last);
    streams.judge("the order on hooks")
}

#[test]
fn whoever_hides_packets_from_ours_is_overtaken_where_the_order_matters() -> Result<()> {
    for order in ["first", "any"] {
        let Some((trial, agent)) = with_links(&["--hook-order", order])? else {
            return Ok(());
        };
        let node = &trial.lab.node(NODE).endpoint.namespace;
        let server = trial.lab.pod("x/server").index;
        let (from, to) = (trial.endpoint("other"), trial.endpoint("server"));
        let denied = Stream::start(from, to, 4, 9004, 1000, Ports::Fresh)?;
        let hides = node.run(|| Foreign::before(server, Hook::Egress));
        // Of a pin is seen that the agent has looked.
        let pin = pins(&trial.lab.bpffs().join(NODE))?;
        let map = pin.iter().find(|pin| pin.ends_with("maps/CONFIG"));
        fs::remove_file(map.context("no map")?)?;
        until(&agent, order, |status| status.drift.pins == 1)?;
        let looked = Instant::now();
        thread::sleep(ANSWER);
        let loss = denied.stop()?;
        let (sent, leaked) = loss.between(looked, Instant::now());
        let status = agent.status()?;
        println!("{order}: {leaked} of {sent} leaked afterwards");
        ensure!(loss.leaked() > 0, "nothing was hidden");
        if order == "first" {
            ensure!(leaked == 0, "{leaked} of {sent} leaked afterwards");
            ensure!(status.drift.positions == 1, "{:?}", status.drift);
        } else {
            ensure!(leaked > 0, "what is to stay was moved");
            ensure!(runs_before(&status, (server, Hook::Egress)), "{status:#?}");
            ensure!(status.drift.positions == 0, "{:?}", status.drift);
        }
        drop(hides);
    }
    Ok(())
}

#[test]
fn programs_of_others_are_told_with_their_place() -> Result<()> {
    // Left where they are, so that both places are seen.
    let Some((trial, agent)) = with_links(&["--hook-order", "any"])? else {
        return Ok(());
    };
    let streams = trial.streams()?;
    let node = &trial.lab.node(NODE).endpoint.namespace;
    let device = trial.lab.pod("x/client").index;
    let behind = node.run(|| Foreign::attach(device, false));
    until(&agent, "behind", |status| {
        status
            .foreign
            .iter()
            .any(|other| !other.before && other.ifindex == device)
    })?;
    drop(behind);
    let before = node.run(|| Foreign::before(device, Hook::Ingress));
    until(&agent, "before", |status| {
        let mut foreign = status.foreign.iter();
        foreign.any(|other| other.before && other.ifindex == device && other.hook == "ingress")
    })?;
    drop(before);
    until(&agent, "none", |status| status.foreign.is_empty())?;
    streams
        .judge("programs of others come and go")
        .context("the client's own are allowed")
}
