//! Hours in a day: pods, policies and namespaces come and go, an agent is started again and again, a pod is flooded, while
//! two streams of a thousand packets a second are judged anew with each packet. One must pass, the other must not; and the
//! agent that is never ended must not grow.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade_tests::{
    agent::Agent,
    cost::Cost,
    lab::Cni,
    probe::{Ports, Stream},
    site::{READY, SETTLE, Site, block, nothing, only_from, pod, policy},
};
use serde_json::{Value, json};

/// Where the streams go; nobody else serves that.
const PORT: u16 = 9000;
const RATE: u32 = 1000;
/// How often is told how it goes.
const LOOK: Duration = Duration::from_secs(15);
/// Of the rounds, one in so many begins with an agent that is killed, and with a flood.
const RESTART: u32 = 20;
const FLOOD: u32 = 7;
/// Pods, policies and namespaces that come and go in a round.
const CROWD: usize = 4;
/// By how much memory and files may grow in the second half, and still be called flat: in the first what is bounded fills.
const SLACK: (f64, usize) = (1.15, 4);

/// What the agent that is never ended holds.
#[derive(Clone, Copy, Debug)]
struct Holds {
    memory: u64,
    files: usize,
}

pub(crate) fn print(time: Duration) -> Result<()> {
    let mut site = Site::new(Cni::Ptp)?;
    site.manifests.apply(&only_from("near-good", "good"))?;
    let settled = Instant::now() + SETTLE;
    while !site.agents[0]
        .status()?
        .pods
        .iter()
        .any(|pod| pod.ingress.isolated)
    {
        ensure!(Instant::now() < settled, "the policy is not in force");
        thread::sleep(Duration::from_millis(20));
    }
    let endpoint = |name: &str| &site.lab.pod(&format!("x/{name}")).endpoint;
    let start = |from: &str, port| {
        let (from, to) = (endpoint(from), endpoint("near-good"));
        Stream::start(from, to, 4, port, RATE, Ports::Fresh)
    };
    let streams = [start("far-good", PORT)?, start("far-bad", PORT + 1)?];

    println!("\n| after, s | rounds | restarts | memory, MiB | files |");
    println!("|---|---|---|---|---|");
    let (begun, mut told, mut round, mut restarts) = (Instant::now(), Instant::now(), 0, 0);
    let (mut early, mut last) = (None, holds(&mut site)?);
    while begun.elapsed() < time {
        round += 1;
        crowd(&mut site, round)?;
        if round % FLOOD == 0 {
            flood(&site)?;
        }
        if round % RESTART == 0 {
            restart(&mut site)?;
            restarts += 1;
        }
        if told.elapsed() >= LOOK {
            told = Instant::now();
            last = holds(&mut site)?;
            let Holds { memory, files } = last;
            println!(
                "| {:.0} | {round} | {restarts} | {memory} | {files} |",
                begun.elapsed().as_secs_f64()
            );
            if early.is_none() && begun.elapsed() >= time / 2 {
                early = Some(last);
            }
        }
    }
    let [allowed, denied] = streams.map(Stream::stop);
    let (allowed, denied) = (allowed?, denied?);
    let (lost, leaked) = (allowed.lost(), denied.leaked());
    println!(
        "\n{} packets that must pass: {lost} lost; {} that must not: {leaked} leaked",
        allowed.sent.len(),
        denied.sent.len()
    );
    ensure!(lost == 0 && leaked == 0, "packets went wrong");
    let early = early.context("the time was too short to look twice")?;
    ensure!(
        last.memory as f64 <= early.memory as f64 * SLACK.0 && last.files <= early.files + SLACK.1,
        "from {early:?} to {last:?}"
    );
    Ok(())
}

/// What the agent of the first node holds, which is never ended.
fn holds(site: &mut Site) -> Result<Holds> {
    let pid = site.agents[0].process().pid();
    Ok(Holds {
        memory: Cost::of(pid)?.resident,
        files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    })
}

/// Namespaces, pods and policies that come, change and go; none of them speaks of the streams.
fn crowd(site: &mut Site, round: u32) -> Result<()> {
    let node = ["node1", "node2"][round as usize % 2];
    let mut objects: Vec<Value> = Vec::new();
    for at in 0..CROWD {
        let name = format!("crowd-{at}");
        let addresses = site.lab.add_pod(&format!("x/{name}"), node)?;
        let addresses = addresses.endpoint.addresses.clone();
        objects.push(pod(&name, node, &addresses, "crowd"));
        let mut closed = nothing(&name, "Egress");
        closed["metadata"]["name"] = format!("closed-{at}").into();
        objects.push(closed);
        let peer = json!({"namespaceSelector": {"matchLabels": {"round": round.to_string()}}});
        let net = block(addresses[0], (round % 16) as u8);
        let changing = policy(
            &format!("changing-{at}"),
            json!({
                "podSelector": {"matchLabels": {"role": "crowd"}},
                "ingress": [{"from": [peer, net], "ports": [{"port": 1000 + round % 1000}]}],
            }),
        );
        objects.push(changing);
        objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": format!("n-{at}"), "labels": {"round": round.to_string()}},
        }));
    }
    for object in &objects {
        site.manifests.apply(object)?;
    }
    let settled = Instant::now() + SETTLE;
    let agent = usize::from(node == "node2");
    let enforced = |site: &Site| -> Result<usize> {
        let pods = site.agents[agent].status()?.pods;
        let crowd = pods.iter().filter(|pod| pod.name.starts_with("crowd-"));
        Ok(crowd.filter(|pod| pod.enforced).count())
    };
    while enforced(site)? < CROWD {
        ensure!(
            Instant::now() < settled,
            "pods of round {round} are not enforced"
        );
        thread::sleep(Duration::from_millis(10));
    }
    for at in 0..CROWD {
        site.lab.remove_pod(&format!("x/crowd-{at}"))?;
    }
    for object in objects.iter().rev() {
        site.manifests.delete(object)?;
    }
    Ok(())
}

/// Denied packets, as many as go in a moment.
fn flood(site: &Site) -> Result<()> {
    let victim = site
        .lab
        .pod("x/near-good")
        .endpoint
        .address(4)
        .context("IPv4")?;
    let flooder = &site.lab.pod("x/near-bad").endpoint.namespace;
    flooder.run(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for port in 0..20_000_u16 {
            socket.send_to(&[0; 8], SocketAddr::new(victim, 20_000 + port))?;
        }
        Ok(())
    })
}

/// Kills the second node's agent, and starts another.
fn restart(site: &mut Site) -> Result<()> {
    site.agents[1].process().kill()?;
    let program = Agent::program()?;
    site.agents[1] = Agent::start(&site.lab, "node2", &program, site.manifests.folder(), &[])?;
    site.agents[1].wait_until_ready(READY)
}
