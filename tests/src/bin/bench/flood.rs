//! An agent beside a flood: what denied packets by the hundred thousand a second cost it, and whether it still hears of others.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade::api::{
    client,
    proto::{Flow, Status},
};
use palisade_tests::{
    cost::Cost,
    lab::Cni,
    site::{SETTLE, Site, TARGET, nothing},
};

/// How long each flood lasts.
const TURN: Duration = Duration::from_secs(10);
/// How often somebody else is denied meanwhile.
const OTHERS: Duration = Duration::from_millis(200);
/// The pod that is flooded, who floods it, another that is isolated, and who asks that.
const VICTIM: &str = "near-good";
const FLOODER: &str = "near-bad";
const OTHER: &str = "client";
const ASKING: &str = "far-good";

pub(crate) fn print() -> Result<()> {
    let mut site = Site::new(Cni::Ptp)?;
    for pod in [VICTIM, OTHER] {
        let mut policy = nothing(pod, "Ingress");
        policy["metadata"]["name"] = format!("nothing-{pod}").into();
        site.manifests.apply(&policy)?;
    }
    let begun = Instant::now();
    while isolated(&site)? < 2 {
        ensure!(begun.elapsed() < SETTLE, "the policies are not in force");
        thread::sleep(Duration::from_millis(20));
    }
    println!("\n| denied at one pod | packets, 1/s | agent, cores | others denied | told of |");
    println!("|---|---|---|---|---|");
    for (name, ports) in [
        ("nothing", 0),
        ("at one port", 1),
        ("at 50,000 ports", 50_000),
    ] {
        let Turn {
            rate,
            cores,
            asked,
            told,
        } = turn(&mut site, ports)?;
        println!("| {name} | {rate:.0} | {cores:.3} | {asked} | {told} |");
        ensure!(
            told == asked,
            "of {asked} packets of others {told} are told of"
        );
    }
    Ok(())
}

struct Turn {
    rate: f64,
    cores: f64,
    asked: usize,
    told: usize,
}

/// Floods the victim at so many ports.
fn turn(site: &mut Site, ports: u16) -> Result<Turn> {
    let address = |name: &str| -> Result<IpAddr> {
        let endpoint = &site.lab.pod(&format!("x/{name}")).endpoint;
        endpoint.address(4).context("no IPv4")
    };
    let (victim, other) = (address(VICTIM)?, address(OTHER)?);
    let pid = site.agents[0].process().pid();
    let agent = &site.agents[0];
    let namespace = |name: &str| &site.lab.pod(&format!("x/{name}")).endpoint.namespace;
    let (flooder, asking) = (namespace(FLOODER), namespace(ASKING));
    let newest = flows(agent.socket())?.last().map_or(0, |flow| flow.number);
    let stop = AtomicBool::new(false);
    let (before, begun) = (Cost::of(pid)?, Instant::now());
    let (sent, asked) = thread::scope(|scope| -> Result<(u64, usize)> {
        let flood = scope.spawn(|| flooder.run(|| flood(victim, ports, &stop)));
        let others = scope.spawn(|| asking.run(|| ask(other, &stop)));
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().ok().context("the flood")??;
        Ok((sent, others.join().ok().context("the others")??))
    })?;
    let took = begun.elapsed().as_secs_f64();
    let cores = Cost::of(pid)?.since(&before) / took;
    thread::sleep(OTHERS);
    let told = flows(agent.socket())?;
    let of_others = |flow: &&Flow| flow.number > newest && flow.pod.pod.as_deref() == Some(OTHER);
    Ok(Turn {
        rate: sent as f64 / took,
        cores,
        asked,
        told: told.iter().filter(of_others).count(),
    })
}

/// Sends a datagram now and then, from a port of its own; how many went.
fn ask(other: IpAddr, stop: &AtomicBool) -> io::Result<usize> {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        UdpSocket::bind("0.0.0.0:0")?.send_to(&[0; 8], SocketAddr::new(other, TARGET))?;
        asked += 1;
        thread::sleep(OTHERS);
    }
    Ok(asked)
}

/// Sends until it is told to stop, each datagram to the next port; how many went.
fn flood(victim: IpAddr, ports: u16, stop: &AtomicBool) -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        if ports == 0 {
            thread::sleep(OTHERS);
            continue;
        }
        for _ in 0..1000 {
            let port = 1000 + (sent % u64::from(ports)) as u16;
            socket.send_to(&[0; 8], SocketAddr::new(victim, port))?;
            sent += 1;
        }
    }
    Ok(sent)
}

/// How many pods of the node are isolated.
fn isolated(site: &Site) -> Result<usize> {
    let Status { pods, .. } = site.agents[0].status()?;
    Ok(pods
        .iter()
        .filter(|pod| pod.ingress.isolated && pod.enforced)
        .count())
}

fn flows(socket: &std::path::Path) -> Result<Vec<Flow>> {
    Ok(client::get(socket, "/v1/flows?last=100000")?)
}
