//! An API server that answers, and refuses: overloaded (429), broken (500) or on its way up (503).

use std::{
    env,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade_tests::{
    agent::Agent,
    control_plane::{Fake, versioned},
    lab::Cni,
    probe::{Attempt, Outcome, Protocol, attempt},
    skip_without_root,
    trial::{ANSWER, NODE, Trial, peer, policy},
};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);
/// How long until it is tried again at the latest, and a little.
const AGAIN: Duration = Duration::from_secs(75);
const LISTS: [&str; 4] = ["namespaces", "pods", "networkpolicies", "services"];
/// What each is refused with.
const CODES: [u16; 4] = [429, 503, 500, 429];
/// The port of the client that is served.
const PORT: u16 = 8080;

/// How long it lasts; minutes by `PALISADE_REFUSED`, in seconds.
fn refused() -> Result<Duration> {
    let seconds = env::var("PALISADE_REFUSED");
    let seconds = seconds.map_or(Ok(12), |seconds| {
        seconds
            .parse()
            .context("PALISADE_REFUSED is no number of seconds")
    });
    Ok(Duration::from_secs(seconds?))
}

/// Makes these what the server lists, all of that version.
fn list(fake: &Fake, objects: &[Value], version: u64) {
    for (list, kind) in LISTS
        .iter()
        .zip(["Namespace", "Pod", "NetworkPolicy", "Service"])
    {
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        let listed: Vec<_> = of_kind.map(|object| versioned(object, version)).collect();
        fake.list(list, version, &listed);
    }
}

/// Waits until the other pod reaches the client, or does not.
fn client_answers(trial: &Trial, expected: bool) -> Result<()> {
    let deadline = Instant::now() + AGAIN;
    let to = SocketAddr::new(trial.address("client", 4)?, PORT);
    loop {
        let attempts = [Attempt {
            from: &trial.endpoint("other").namespace,
            to,
            protocol: Protocol::Tcp,
            patience: ANSWER,
        }];
        if (attempt(&attempts)?[0].outcome == Outcome::Answered) == expected {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "other -> client is not {expected}"
        );
    }
}

#[test]
fn the_last_state_stays_while_the_server_refuses_and_what_it_says_afterwards_holds() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let refused = refused()?;
    let trial = Trial::new(Cni::Ptp)?;
    trial.lab.serve("x/client", PORT, Protocol::Tcp)?;
    let fake = Fake::start(&trial.lab.node(NODE).endpoint.namespace)?;
    let kubeconfig = trial.lab.path().join("kubeconfig");
    fake.kubeconfig(&kubeconfig)?;
    list(&fake, &trial.objects, 10);
    let program = Agent::program()?;
    let mut agent = Agent::start_watching(&trial.lab, NODE, &program, &kubeconfig, &[])?;
    agent.wait_until_ready(READY)?;
    fake.wait_until_watched(AGAIN)?;
    let streams = trial.streams()?;
    client_answers(&trial, true)?;
    for (list, code) in LISTS.iter().zip(CODES) {
        fake.refuse(list, Some(code));
    }
    for list in LISTS {
        fake.close(list);
    }
    let reason = agent.wait_for_source(false, AGAIN)?;
    let names = |code: &u16| reason.contains(&code.to_string());
    ensure!(CODES.iter().any(names), "the source: {reason}");
    thread::sleep(refused);
    // Of each kind less than once a second, from one answer to the next more seldom.
    let (asked, seconds) = (fake.refused(), refused.as_secs());
    println!("asked {asked} times in {seconds} s and a few more");
    ensure!(asked >= LISTS.len(), "asked {asked} times");
    ensure!(
        asked < 16 + 2 * refused.as_secs() as usize,
        "asked {asked} times"
    );
    for list in LISTS {
        fake.refuse(list, None);
    }
    agent.wait_for_source(true, AGAIN)?;
    fake.wait_until_watched(AGAIN)?;
    // What has changed in the meantime is told where the watch goes on, as a server does.
    let closed = policy(
        "closed",
        &json!({"podSelector": peer("client")["podSelector"], "ingress": []}),
    );
    fake.tell("networkpolicies", "ADDED", &versioned(&closed, 20));
    client_answers(&trial, false)?;
    ensure!(agent.process().is_running(), "the agent has ended");
    streams.judge("while the server refused")
}
