//! Connections between two pods of a lab.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use palisade_common::value::Cell;
use palisade_tests::{
    lab::{Cni, Lab, Plan},
    rig::{Guard, Scene},
};

/// Turns of each measurement, with and without by turns; the middle one counts.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);

pub(crate) fn print() -> Result<()> {
    println!("\n| between two pods of a node | without | with | ratio |");
    println!("|---|---|---|---|");
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    lab.add_pod("x/client", "node1")?;
    lab.add_pod("x/server", "node1")?;
    let mut guard = Guard::new(&lab, "node1", 1);
    isolate(&mut guard);
    for (name, measure) in [
        ("TCP requests, 1/s", requests as fn(&Lab) -> Result<f64>),
        ("TCP stream, MB/s", stream),
    ] {
        let mut found = [Vec::new(), Vec::new()];
        for turn in 0..2 * TURNS {
            let with = turn % 2;
            guard.attach(&lab.node("node1").endpoint.namespace, with == 1);
            found[with].push(measure(&lab)?);
        }
        let [without, with] = found.map(|mut found| {
            found.sort_by(f64::total_cmp);
            found[TURNS / 2]
        });
        println!(
            "| {name} | {without:.0} | {with:.0} | {:.3} |",
            with / without
        );
    }
    Ok(())
}

/// The server takes connections of the client alone.
fn isolate(guard: &mut Guard) {
    let (client, server) = (guard.slots["x/client"], guard.slots["x/server"]);
    guard.rig.ports(Scene::PORTS, &[Scene::PORT]);
    guard.rig.default_cell(Scene::INGRESS, Cell::DENY);
    guard
        .rig
        .cell(Scene::INGRESS, u32::from(client), Scene::CELL);
    let slot = guard.rig.slot(server);
    guard.rig.tables(server, Scene::INGRESS, slot.egress);
}

fn connect(lab: &Lab) -> Result<(TcpStream, TcpStream)> {
    let server = &lab.pod("x/server").endpoint;
    let address: IpAddr = server.address(4).context("no IPv4")?;
    let listener = server
        .namespace
        .run(|| TcpListener::bind(SocketAddr::new(address, Scene::PORT)))?;
    let client = lab.pod("x/client").endpoint.namespace.run(|| {
        TcpStream::connect_timeout(
            &SocketAddr::new(address, Scene::PORT),
            Duration::from_secs(5),
        )
    })?;
    let (served, _) = listener.accept()?;
    for end in [&client, &served] {
        end.set_nodelay(true)?;
    }
    Ok((client, served))
}

fn requests(lab: &Lab) -> Result<f64> {
    let (mut client, mut server) = connect(lab)?;
    let echo = thread::spawn(move || {
        let mut byte = [0; 1];
        while let Ok(1) = server.read(&mut byte) {
            if server.write_all(&byte).is_err() {
                break;
            }
        }
    });
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < TURN {
        client.write_all(&[1])?;
        client.read_exact(&mut [0; 1])?;
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    drop(client);
    echo.join().ok().context("the server")?;
    Ok(rate)
}

fn stream(lab: &Lab) -> Result<f64> {
    let (mut client, mut server) = connect(lab)?;
    let sink = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 17];
        let mut total = 0;
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            total += length;
        }
        total
    });
    let begun = Instant::now();
    let buffer = vec![0; 1 << 17];
    while begun.elapsed() < TURN {
        client.write_all(&buffer)?;
    }
    drop(client);
    let total = sink.join().ok().context("the server")?;
    Ok(total as f64 / begun.elapsed().as_secs_f64() / 1e6)
}
