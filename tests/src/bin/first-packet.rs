//! Sends from its first instruction on, and receives: what a pod's first packets meet.
//!
//!     first-packet send COUNT ADDRESS:PORT...
//!     first-packet stream RATE ADDRESS:PORT
//!     first-packet end
//!     first-packet receive PORT
//!
//! `send` sends a datagram to every address, and makes a connection to the first, each 10 ms, with its host's name (a pod's
//! name) and a number, COUNT times; it says `done` and stays. `stream` sends datagrams at a rate per second until `end` is called in
//! the same container, and says how many they were, and `done`. `receive` prints once a second what it has got so far, as JSON on one line:
//! of each sender and protocol the smallest number, how many there were, and how many from 100 on (the first second).

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{self, net::UnixDatagram},
    },
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt;
use serde_json::json;

const EVERY: Duration = Duration::from_millis(10);
/// For how long a connection is tried. One that comes late was not lost; of single packets datagrams tell.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of datagrams that may wait for the receiver: some ten seconds' of a few thousand a second.
const QUEUE: usize = 64 << 20;
/// The first number after the first second.
const LATER: u32 = 100;

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", count, targets @ ..] => {
            let targets: Result<Vec<_>, _> = targets.iter().map(|it| it.parse()).collect();
            send(start, count.parse()?, &targets?)
        }
        ["stream", rate, target] => stream(rate.parse()?, target.parse()?),
        ["end"] => end(),
        ["receive", port] => receive(port.parse()?),
        _ => bail!(
            "usage: first-packet send COUNT ADDRESS:PORT... | stream RATE ADDRESS:PORT | end | receive PORT"
        ),
    }
}

fn send(start: Instant, count: u32, targets: &[SocketAddr]) -> Result<()> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name: Arc<str> = name.trim().into();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for number in 0..count {
        let due = start + EVERY * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let text = format!("{name} {number}");
        // What does not get out is missed at the other end.
        for target in targets {
            drop(socket.send_to(text.as_bytes(), target));
        }
        if let Some(&target) = targets.first() {
            thread::spawn(move || {
                let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
                stream.write_all(text.as_bytes())
            });
        }
    }
    thread::sleep(PATIENCE);
    println!("done");
    loop {
        thread::park();
    }
}

/// Where it is told to end: an abstract address of the pod's network.
const END: &[u8] = b"first-packet-end";

fn stream(rate: u32, target: SocketAddr) -> Result<()> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = name.trim();
    let told = UnixDatagram::bind_addr(&unix::net::SocketAddr::from_abstract_name(END)?)?;
    told.set_nonblocking(true)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let (start, mut number) = (Instant::now(), 0);
    while told.recv(&mut [0; 1]).is_err() {
        let due = start + Duration::from_secs(1) * number / rate.max(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // What policy drops at once is an error of the call on some paths, and not sent either.
        drop(socket.send_to(format!("{name} {number}").as_bytes(), target));
        number += 1;
    }
    println!("{number} sent, done");
    loop {
        thread::park();
    }
}

fn end() -> Result<()> {
    let address = unix::net::SocketAddr::from_abstract_name(END)?;
    UnixDatagram::unbound()?.send_to_addr(b"e", &address)?;
    Ok(())
}

/// The numbers that came, by sender and protocol.
type Got = BTreeMap<(String, &'static str), BTreeSet<u32>>;

fn receive(port: u16) -> Result<()> {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    let got = Arc::new(Mutex::new(Got::new()));
    let (socket, listener) = (UdpSocket::bind(any)?, TcpListener::bind(any)?);
    // What waits for a busy machine is not lost.
    sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE)?;
    let datagrams = got.clone();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok(length) = socket.recv(&mut buffer) {
            note(&datagrams, "udp", &buffer[..length]);
        }
    });
    let connections = got.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let connections = connections.clone();
            thread::spawn(move || {
                let mut text = Vec::new();
                if stream.read_to_end(&mut text).is_ok() {
                    note(&connections, "tcp", &text);
                }
            });
        }
    });
    loop {
        thread::sleep(Duration::from_secs(1));
        let got = got.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = got.iter().map(|((name, protocol), numbers)| {
            json!({
                "name": name, "protocol": protocol,
                "first": numbers.first(), "all": numbers.len(),
                "later": numbers.range(LATER..).count(),
            })
        });
        let rows: Vec<_> = rows.collect();
        drop(got);
        let mut out = std::io::stdout();
        writeln!(out, "{}", json!(rows)).context("standard output")?;
    }
}

fn note(got: &Mutex<Got>, protocol: &'static str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let Some((name, number)) = text.split_once(' ') else {
        return;
    };
    if let Ok(number) = number.parse() {
        let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = got.entry((name.to_owned(), protocol)).or_default();
        numbers.insert(number);
    }
}
