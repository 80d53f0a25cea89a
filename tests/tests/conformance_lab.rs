//! The corpora with real agents, real sockets and real Services.

use std::{
    error::Error,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use palisade_tests::{
    agent::Agent,
    corpus::{Case, Cluster, Corpus, Placement, Probe},
    lab::{Cni, Lab},
    manifest::Manifests,
    probe::{Check, Patience},
    skip_without_root,
};

type Result = std::result::Result<(), Box<dyn Error>>;

/// Cases under way at once; most of their time they wait for packets that do not come.
const WORKERS: usize = 4;

const READY: Duration = Duration::from_secs(30);

const STYLES: [Cni; 2] = [Cni::Ptp, Cni::Bridge { netfilter: true }];

/// What the agent is told of Services. Their translation works in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Services {
    /// There are none.
    None,
    /// It knows them.
    Known,
    /// It knows none of them.
    Unknown,
}

/// One way to play a case.
struct Run<'a> {
    case: &'a Case,
    cni: Cni,
    services: Services,
    /// Of which family addresses in policies are.
    family: u8,
}

impl Run<'_> {
    /// Plays the case to its end. Where no policy speaks of addresses, what holds for one family holds
    /// for both.
    fn play(&self) -> anyhow::Result<()> {
        let case = self.case;
        let placement = Placement::of(case, 2, self.cni)?;
        let plan = placement.plan();
        let mut lab = Lab::new(&plan)?;
        for external in &case.topology.externals {
            lab.add_outside(&external.ip.to_string(), &[external.ip])?;
        }
        let mut cluster = Cluster::new(case, placement, self.family)?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        let objects = |cluster: &Cluster| match self.services {
            Services::Known => cluster.objects(),
            Services::None | Services::Unknown => cluster.objects_without_services(),
        };
        cluster.populate(&mut lab)?;
        manifests.sync(&objects(&cluster))?;
        let program = Agent::program()?;
        let mut agents = Vec::new();
        for node in &plan.nodes {
            let folder = manifests.folder();
            agents.push(Agent::start(&lab, &node.name, &program, folder, &[])?);
        }
        for agent in &mut agents {
            agent.wait_until_ready(READY)?;
        }
        for (number, step) in case.steps.iter().enumerate() {
            cluster.apply(step)?;
            cluster.populate(&mut lab)?;
            manifests.sync(&objects(&cluster))?;
            self.look(&lab, &cluster, &step.probes)
                .with_context(|| format!("step {number}"))?;
        }
        Ok(())
    }

    fn look(&self, lab: &Lab, cluster: &Cluster, probes: &[Probe]) -> anyhow::Result<()> {
        let both = !self.case.has_blocks() && self.case.topology.externals.is_empty();
        let families = if both { vec![4, 6] } else { vec![self.family] };
        let each = |family: u8| probes.iter().map(move |probe| probe.check(family));
        let checks: Vec<_> = families.into_iter().flat_map(each).collect();
        if self.services != Services::Unknown {
            lab.expect(&checks, Patience::default())
                .context("by pod address")?;
        }
        if self.services != Services::None {
            let address = |pod: &str, check: &Check| cluster.service_address(pod, check.family);
            lab.expect_at(&checks, Patience::default(), &address)
                .context("through Services")?;
        }
        Ok(())
    }
}

/// Plays cases in every style, and over IPv6 too where that differs; several at once. Tells what failed.
fn play_all(cases: &[Case], services: &[Services]) -> Result {
    let mut runs = Vec::new();
    for case in cases {
        let differs = case.has_blocks() && !case.has_literal_blocks();
        let families: &[u8] = if differs { &[4, 6] } else { &[4] };
        for &cni in &STYLES {
            for &services in services {
                runs.extend(families.iter().map(|&family| Run {
                    case,
                    cni,
                    services,
                    family,
                }));
            }
        }
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = run.play() {
                        let Run {
                            cni,
                            services,
                            family,
                            ..
                        } = run;
                        let how = format!("{cni:?}, Services {services:?}, IPv{family}");
                        let failure = format!("{} ({how}): {error:#}", run.case.name);
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push(failure);
                    }
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let (all, failed) = (runs.len(), failures.len());
    println!("{all} runs in {:?}, {failed} failed", begun.elapsed());
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("\n\n").into())
}

#[test]
fn end_to_end_cases_hold() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    play_all(&Corpus::E2e.cases()?, &[Services::Known, Services::Unknown])
}

#[test]
fn recipes_hold() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    play_all(&Corpus::Recipes.cases()?, &[Services::None])
}

#[test]
fn every_tenth_case_of_cyclonus_holds() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let cases = Corpus::Cyclonus.cases()?.into_iter().step_by(10);
    play_all(&cases.collect::<Vec<_>>(), &[Services::None])
}
