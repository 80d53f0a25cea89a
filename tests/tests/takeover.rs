//! One agent after the other, whatever became of the last: nothing that must pass is lost, nothing that must not leaks.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::Cni,
    skip_without_root,
    trial::{ANSWER, Trial, policy},
};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);
const STRATEGIES: [&str; 2] = ["tcx", "clsact"];

/// Policies that change nothing between these pods, each with other classes, tables and port sets.
fn beside(number: u64) -> Value {
    let blocks = (0..number % 40).map(|at| {
        let cidr = format!("198.51.{}.0/{}", (at * 7 + number) % 256, 24 + at % 8);
        json!({"ipBlock": {"cidr": cidr}})
    });
    let ports = (0..=number % 5).map(|at| json!({"port": 1 + (number * 31 + at * 97) % 9000}));
    let isolates = json!(["Ingress", "Egress"]);
    policy(
        &format!("beside-{}", number % 3),
        &json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": if number.is_multiple_of(2) { isolates } else { json!(["Ingress"]) },
            "ingress": [{
                "from": blocks.collect::<Vec<_>>(),
                "ports": ports.collect::<Vec<_>>(),
            }, {"from": [{"podSelector": {"matchLabels": {"app": format!("nobody-{number}")}}}]}],
        }),
    )
}

/// The program that `PALISADE_OTHER` names: that of another version, whose maps may be laid out otherwise.
#[test]
fn another_version_takes_over_and_gives_back_without_a_gap() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let own = Agent::program()?;
    let other = std::env::var_os("PALISADE_OTHER").map_or_else(|| own.clone(), PathBuf::from);
    for strategy in STRATEGIES {
        let trial = Trial::new(Cni::Ptp)?;
        let attach = ["--attach", strategy];
        let mut agent = trial.ready(&other, &attach)?;
        let mut streams = trial.streams()?;
        for program in [&own, &other, &own] {
            thread::sleep(Duration::from_millis(300));
            agent.process().kill()?;
            agent = trial.ready(program, &attach)?;
            let cut = format!("{strategy}: {} cut a connection", program.display());
            ensure!(streams.open.works(ANSWER), cut);
        }
        streams.judge(strategy)?;
    }
    Ok(())
}

#[test]
fn an_agent_may_be_killed_at_any_moment() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let own = Agent::program()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = now.as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    for strategy in STRATEGIES {
        let mut trial = Trial::new(Cni::Ptp)?;
        let attach = ["--attach", strategy];
        let mut agent = trial.ready(&own, &attach)?;
        let streams = trial.streams()?;
        for _ in 0..12 {
            // While it writes what is new; then its successor, while that takes over.
            for longest in [40, 250] {
                let number = below(1000);
                trial.beside((0..number % 4).map(|more| beside(number + more)))?;
                thread::sleep(Duration::from_millis(below(longest)));
                agent.process().kill()?;
                agent = trial.start(&own, &attach)?;
            }
        }
        agent.wait_until_ready(READY)?;
        streams.judge(strategy)?;
    }
    Ok(())
}
