//! One scenario at a time, on pods that no other scenario has meanwhile.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;

use self::check::{Check, Mismatch, Wanted};
use super::{
    probe::{PORTS, Probe, SPOTS, Target},
    report::{Failure, Outcome, Ran},
    scenario::{Scenario, Step},
    stage::Set,
    wire::{Answer, Task},
};
use crate::cluster::Cluster;

mod agents;
mod check;
mod objects;

/// How long an attempt may take that is to be answered: a lost packet is sent again after a second.
const ANSWER: Duration = Duration::from_millis(2500);
/// How long nobody may answer what is to be denied: for a first look, and before it is believed.
const GLANCE: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_millis(1200);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How often an address is tried where only one of several backends may answer.
const TIMES: usize = 8;
/// How long pods may take to reach each other before the first scenario.
const START: Duration = Duration::from_secs(60);

/// A lane.
pub struct Lane<'a> {
    cluster: &'a Cluster,
    set: Set,
    /// How long what is expected may take to come true.
    timeout: Duration,
    sctp: bool,
}

/// Connections that are held, by probe and address.
type Connections<'a> = Vec<(&'a Probe, SocketAddr, u64)>;

/// Why a scenario ends before its end.
enum Stop {
    Skipped(String),
    Failed(Failure),
    /// The test itself cannot go on.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl<'a> Lane<'a> {
    /// Waits until everybody reaches everybody, for no policy is there yet, and learns by which addresses nodes are seen.
    ///
    /// # Errors
    ///
    /// Somebody does not reach somebody.
    pub async fn open(cluster: &'a Cluster, set: Set, timeout: Duration) -> anyhow::Result<Self> {
        let mut lane = Self {
            cluster,
            set,
            timeout,
            sctp: false,
        };
        let ends = SPOTS
            .iter()
            .filter(|spot| lane.set.sessions.contains_key(spot));
        let ends: Vec<_> = ends.collect();
        let pods = ends.iter().copied().filter(|spot| spot.pod().is_some());
        let pods: Vec<_> = pods.collect();
        let mut probes = Vec::new();
        for from in &ends {
            for to in &pods {
                let text = format!("{} -> {}:{}", from.name, to.name, PORTS[0]);
                probes.push(Probe::try_from(text).map_err(anyhow::Error::msg)?);
            }
        }
        let mut checks = Vec::new();
        for probe in &probes {
            // A node may lack a family of its pods.
            for target in lane.set.places.targets(probe).unwrap_or_default() {
                checks.push(Check {
                    probe,
                    target,
                    wanted: Wanted::Allowed,
                    connection: None,
                });
            }
        }
        let end = Instant::now() + START;
        loop {
            let (wrong, answers) = lane.look(&checks, ANSWER).await?;
            let Some(first) = wrong.first() else {
                for (check, answer) in checks.iter().zip(answers) {
                    let from = check.probe.from;
                    if let Some(greeting) = answer.greeting
                        && from.pod().is_none()
                    {
                        let seen = lane.set.places.seen.entry(from).or_default();
                        seen.insert(greeting.client.ip());
                    }
                }
                break;
            };
            ensure!(
                Instant::now() < end,
                "before any policy pods do not reach each other: {first}"
            );
        }
        lane.sctp = lane.speaks_sctp().await?;
        Ok(lane)
    }

    /// The families that pods have.
    #[must_use]
    pub fn families(&self) -> BTreeSet<&'static str> {
        let addresses = self.set.places.addresses.values().flatten();
        addresses
            .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
            .collect()
    }

    async fn speaks_sctp(&self) -> anyhow::Result<bool> {
        let probe = Probe::try_from("x/a -> x/c:8080/SCTP".to_owned());
        let probe = probe.map_err(anyhow::Error::msg)?;
        let targets = self.set.places.targets(&probe);
        let targets = targets.map_err(anyhow::Error::msg)?.into_iter();
        let asked = targets.map(|target| self.ask(&probe, probe.reach(target, false), ANSWER));
        let answers = try_join_all(asked).await?;
        Ok(answers.iter().all(Answer::is_answered))
    }

    /// Tries a scenario.
    ///
    /// # Errors
    ///
    /// The test cannot go on: nothing is known of the packets.
    pub async fn run(&self, scenario: &Scenario) -> anyhow::Result<Ran> {
        let begun = Instant::now();
        let mut actions = 0;
        let ended = self.attempt(scenario, &mut actions).await;
        let outcome = match ended {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skipped(reason)) => {
                self.clear(scenario).await?;
                Outcome::Skipped(reason)
            }
            Err(Stop::Broken(error)) => {
                return Err(error.context(format!("while trying {}", scenario.name)));
            }
            Err(Stop::Failed(mut failure)) => {
                failure.flows = self.flows(begun).await;
                // What it left may not meet the next.
                self.clear(scenario).await?;
                Outcome::Failed(failure)
            }
        };
        Ok(Ran {
            name: scenario.name.clone(),
            about: scenario.about.clone(),
            needs_enforcement: scenario.needs_enforcement(),
            actions,
            took: begun.elapsed(),
            outcome,
        })
    }

    async fn attempt(&self, scenario: &Scenario, actions: &mut usize) -> Result<(), Stop> {
        if scenario.speaks_sctp() && !self.sctp {
            return Err(Stop::Skipped("nodes have no SCTP".to_owned()));
        }
        for probe in scenario.probes() {
            self.set.places.targets(probe).map_err(Stop::Skipped)?;
        }
        let agents = match scenario.is_alone() {
            true => self.agents().await?,
            false => Vec::new(),
        };
        let mut connections = Connections::new();
        let controls: Vec<_> = scenario.controls().collect();
        self.control(&controls, "before its policies", actions)
            .await?;
        for (number, step) in (1..).zip(&scenario.steps) {
            let what = match scenario.steps.len() {
                1 => "under its policies".to_owned(),
                all => format!("in step {number} of {all}"),
            };
            self.prepare(&scenario.name, step).await?;
            if step.restart_agents {
                self.end_agents(&agents).await?;
            }
            let checks = self.checks(step, &connections)?;
            self.expect(&checks, &what, actions).await?;
            for probe in &step.hold {
                self.hold(probe, &mut connections).await?;
            }
            if step.restart_agents {
                self.await_agents(&agents).await?;
                self.expect(&checks, &format!("{what}, with new agents"), actions)
                    .await?;
            }
        }
        self.clear(scenario).await?;
        self.control(&controls, "after its policies", actions).await
    }

    /// Brings about what a step begins with.
    async fn prepare(&self, name: &str, step: &Step) -> Result<(), Stop> {
        for (who, labels) in &step.labels {
            self.label(who, labels).await?;
        }
        match &step.policies {
            Some(policies) => self.policies(name, policies).await,
            None => Ok(()),
        }
    }

    /// What a step expects, at every address.
    fn checks<'s>(
        &self,
        step: &'s Step,
        connections: &Connections<'s>,
    ) -> Result<Vec<Check<'s>>, Stop> {
        let mut checks = Vec::new();
        for (wanted, probes) in [
            (Wanted::Allowed, &step.allowed),
            (Wanted::Denied, &step.denied),
        ] {
            for probe in probes {
                let targets = self.set.places.targets(probe).map_err(Stop::Skipped)?;
                checks.extend(targets.into_iter().map(|target| Check {
                    probe,
                    target,
                    wanted,
                    connection: None,
                }));
            }
        }
        for (wanted, probes) in [(Wanted::Kept, &step.kept), (Wanted::Cut, &step.cut)] {
            for probe in probes {
                let held = connections.iter().filter(|(held, ..)| *held == probe);
                checks.extend(held.map(|(_, target, connection)| Check {
                    probe,
                    target: *target,
                    wanted,
                    connection: Some(*connection),
                }));
            }
        }
        Ok(checks)
    }

    /// Whoever is denied at some time has to be answered where no policy is.
    async fn control(
        &self,
        probes: &[&Probe],
        when: &str,
        actions: &mut usize,
    ) -> Result<(), Stop> {
        let mut checks = Vec::new();
        let probes: Vec<_> = probes.iter().map(|probe| probe.by_anybody()).collect();
        for probe in &probes {
            let targets = self.set.places.targets(probe).map_err(Stop::Skipped)?;
            checks.extend(targets.into_iter().map(|target| Check {
                probe,
                target,
                wanted: Wanted::Allowed,
                connection: None,
            }));
        }
        self.expect(&checks, when, actions).await
    }

    /// Looks until all is as expected, and stays so for as long as a silence has to last.
    async fn expect(
        &self,
        checks: &[Check<'_>],
        when: &str,
        actions: &mut usize,
    ) -> Result<(), Stop> {
        *actions += checks.len();
        let denies = |check: &Check<'_>| !check.wanted.answered() || check.probe.by.is_some();
        let denies = checks.iter().any(denies);
        let end = Instant::now() + self.timeout;
        let mut silence = GLANCE;
        loop {
            let (wrong, _) = self.look(checks, silence).await?;
            match (wrong.is_empty(), silence == SILENCE || !denies) {
                (true, true) => return Ok(()),
                (true, false) => silence = SILENCE,
                (false, _) if Instant::now() >= end => {
                    return Err(Stop::Failed(Failure {
                        let_through: wrong.iter().all(|mismatch| mismatch.let_through),
                        actions: wrong.iter().map(|it| format!("{when}: {it}")).collect(),
                        flows: Vec::new(),
                    }));
                }
                (false, _) => {
                    silence = GLANCE;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tries everything once, at the same time; what is not as expected.
    async fn look(
        &self,
        checks: &[Check<'_>],
        silence: Duration,
    ) -> anyhow::Result<(Vec<Mismatch>, Vec<Answer>)> {
        let tries = checks.iter().map(|check| async move {
            let patience = match check.wanted.answered() {
                true => ANSWER,
                false => silence,
            };
            let times = if check.probe.by.is_some() { TIMES } else { 1 };
            let task = || match check.connection {
                Some(connection) => Task::Speak { connection },
                None => check.probe.reach(check.target, false),
            };
            let answers = (0..times).map(|_| self.ask(check.probe, task(), patience));
            try_join_all(answers).await
        });
        let all = try_join_all(tries).await?;
        let mismatches = checks
            .iter()
            .zip(&all)
            .filter_map(|(check, answers)| check.judge(answers));
        let mismatches = mismatches.collect();
        Ok((mismatches, all.into_iter().flatten().collect()))
    }

    /// Opens a connection that stays.
    async fn hold<'s>(
        &self,
        probe: &'s Probe,
        connections: &mut Connections<'s>,
    ) -> Result<(), Stop> {
        for target in self.set.places.targets(probe).map_err(Stop::Skipped)? {
            let answer = self.ask(probe, probe.reach(target, true), ANSWER).await?;
            if !answer.is_answered() {
                return Err(Stop::Failed(Failure {
                    let_through: false,
                    actions: vec![format!(
                        "no connection to hold: {probe}: {}",
                        answer.outcome
                    )],
                    flows: Vec::new(),
                }));
            }
            connections.push((probe, target, answer.id));
        }
        Ok(())
    }

    async fn ask(&self, probe: &Probe, task: Task, patience: Duration) -> anyhow::Result<Answer> {
        let session = self.set.sessions.get(probe.from);
        let session = session.with_context(|| format!("there is no {}", probe.from.name))?;
        session.ask(task, patience).await
    }
}

impl Probe {
    fn reach(&self, target: SocketAddr, hold: bool) -> Task {
        Task::Reach {
            target,
            protocol: self.protocol,
            speaks: self.to != Target::Outside,
            hold,
        }
    }
}
