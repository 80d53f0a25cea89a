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
use palisade_policy::{
    evaluate::{Endpoint, Question, Traffic, evaluate},
    index::Index,
    model::{self, Name},
};
use palisade_tests::{
    agent::Agent,
    corpus::{Case, Cluster, Corpus, Placement, Probe},
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Check, Patience, Protocol},
    skip_without_root,
};

type Result = std::result::Result<(), Box<dyn Error>>;

/// Cases under way at once; most of their time they wait for packets that do not come.
const WORKERS: usize = 4;

const READY: Duration = Duration::from_secs(60);

/// A kernel that makes and ends namespaces by the hundred takes its time; what is wrong stays wrong.
const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(500),
    settle: Duration::from_secs(60),
    confirm: true,
};

const STYLES: [Cni; 2] = [Cni::Ptp, Cni::Bridge { netfilter: true }];

/// One way to play a case.
struct Run<'a> {
    case: &'a Case,
    cni: Cni,
    /// Whether pods are asked by their Services too, those that the agent knows and those it does not.
    services: bool,
    /// Of which family addresses in policies are.
    family: u8,
}

/// A lab with agents. Cases with the same nodes are played in it one after the other, each beginning where the last
/// one ended.
struct Stage {
    /// The plan of its nodes, in words.
    plan: String,
    lab: Lab,
    manifests: Manifests,
    agents: Vec<Agent>,
}

impl Stage {
    /// A stage with the pods of a cluster.
    fn new(plan: &Plan, cluster: &Cluster) -> anyhow::Result<Self> {
        let mut lab = Lab::new(plan)?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        cluster.populate(&mut lab)?;
        manifests.sync(&cluster.objects())?;
        let program = Agent::program()?;
        let mut agents = Vec::new();
        for node in &plan.nodes {
            let folder = manifests.folder();
            agents.push(Agent::start(&lab, &node.name, &program, folder, &[])?);
        }
        for agent in &mut agents {
            agent.wait_until_ready(READY)?;
        }
        Ok(Self {
            plan: format!("{plan:?}"),
            lab,
            manifests,
            agents,
        })
    }
}

impl Run<'_> {
    /// Plays the case to its end, on the stage if it fits. Where no policy speaks of addresses, what holds for one
    /// family holds for both.
    fn play(&self, stage: &mut Option<Stage>) -> anyhow::Result<()> {
        let case = self.case;
        let placement = Placement::of(case, 2, self.cni)?;
        let plan = placement.plan();
        let mut cluster = Cluster::new(case, placement, self.family)?;
        let stage = match stage.take_if(|stage| stage.plan == format!("{plan:?}")) {
            Some(fitting) => stage.insert(fitting),
            None => {
                // The last one goes first: its agents take time from those of the next.
                drop(stage.take());
                stage.insert(Stage::new(&plan, &cluster)?)
            }
        };
        let Stage {
            lab,
            manifests,
            agents,
            ..
        } = stage;
        for external in &case.topology.externals {
            if lab.endpoint(&external.ip.to_string()).is_none() {
                lab.add_outside(&external.ip.to_string(), &[external.ip])?;
            }
        }
        for (number, step) in case.steps.iter().enumerate() {
            cluster.apply(step)?;
            cluster.populate(lab)?;
            let looked = self.look(lab, &cluster, (manifests, agents), &step.probes);
            looked.with_context(|| {
                let logs = agents.iter_mut().map(|agent| agent.process().log());
                format!("step {number}; the agents:\n{}", logs.collect::<String>())
            })?;
        }
        Ok(())
    }

    fn look(
        &self,
        lab: &Lab,
        cluster: &Cluster,
        (manifests, agents): (&mut Manifests, &[Agent]),
        probes: &[Probe],
    ) -> anyhow::Result<()> {
        let both = !self.case.has_blocks() && self.case.topology.externals.is_empty();
        let families = if both { vec![4, 6] } else { vec![self.family] };
        let each = |family: u8| probes.iter().map(move |probe| probe.check(family));
        let mut checks: Vec<_> = families.into_iter().flat_map(each).collect();
        manifests.sync(&cluster.objects())?;
        for agent in agents {
            wait_until_known(agent, cluster)?;
        }
        lab.expect(&checks, PATIENCE).context("by pod address")?;
        if !self.services {
            return Ok(());
        }
        let address = |pod: &str, check: &Check| cluster.service_address(pod, check.family);
        lab.expect_at(&checks, PATIENCE, &address)
            .context("through Services")?;
        // Their translation goes on.
        manifests.sync(&cluster.objects_without_services())?;
        deny_as_addressed(cluster, &mut checks);
        lab.expect_at(&checks, PATIENCE, &address)
            .context("through Services that the agent does not know")
    }
}

/// Waits until an agent enforces what the cluster says: before that, silence is no proof of it on a busy machine.
fn wait_until_known(agent: &Agent, cluster: &Cluster) -> anyhow::Result<()> {
    let mut index = Index::default();
    for object in cluster.model() {
        index.apply(object);
    }
    let end = Instant::now() + PATIENCE.settle;
    // What is told of policies may be a turn ahead of what is written.
    let mut told = 0;
    while told < 2 {
        let status = agent.status()?;
        let mut local = index.pods().filter(|pod| {
            pod.counts() && pod.node.as_deref() == Some(&*status.node) && !pod.addresses.is_empty()
        });
        let known = local.all(|pod| {
            let listed = status.pods.iter().find(|listed| {
                (&*listed.namespace, &*listed.name) == (&*pod.name.namespace, &*pod.name.name)
            });
            let policies = |of: fn(&model::Policy) -> bool| -> Vec<String> {
                index
                    .policies_of(&pod.name.namespace)
                    .filter(|policy| of(policy) && policy.selector.matches(&pod.group.labels))
                    .map(|policy| policy.name.name.to_string())
                    .collect()
            };
            listed.is_some_and(|listed| {
                listed.enforced
                    && listed.ingress.policies == policies(|policy| policy.ingress.is_some())
                    && listed.egress.policies == policies(|policy| policy.egress.is_some())
            })
        });
        told = if known { told + 1 } else { 0 };
        anyhow::ensure!(Instant::now() < end, "not in force: {status:#?}");
        if !known {
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Takes away what egress policies do not allow to the address of a Service that nobody told of, which
/// to policy is a stranger's.
fn deny_as_addressed(cluster: &Cluster, checks: &mut [Check]) {
    let mut index = Index::default();
    for object in cluster.model() {
        index.apply(object);
    }
    for check in checks {
        let traffic = match check.protocol {
            Protocol::Tcp => Traffic::Port(model::Protocol::Tcp, check.port),
            Protocol::Udp => Traffic::Port(model::Protocol::Udp, check.port),
            Protocol::Sctp => Traffic::Port(model::Protocol::Sctp, check.port),
            Protocol::Icmp => Traffic::Other,
        };
        for (from, row) in &mut check.expected {
            let Some((namespace, name)) = from.split_once('/') else {
                continue;
            };
            for (to, expected) in row {
                let service = cluster.service_address(to, check.family);
                let question = Question {
                    from: Endpoint::Pod(Name::new(namespace, name)),
                    to: Endpoint::Address(service.expect("every pod asked has a Service")),
                    traffic,
                    family: None,
                };
                *expected &= evaluate(&index, &question).is_ok_and(|answer| answer.egress);
            }
        }
    }
}

/// Plays cases in every style, and over IPv6 too where that differs; several at once. Tells what failed.
fn play_all(cases: &[Case], services: bool) -> Result {
    let mut runs = Vec::new();
    for case in cases {
        let differs = case.has_blocks() && !case.has_literal_blocks();
        let families: &[u8] = if differs { &[4, 6] } else { &[4] };
        for &cni in &STYLES {
            runs.extend(families.iter().map(|&family| Run {
                case,
                cni,
                services,
                family,
            }));
        }
    }
    // Those of one style and one set of nodes share stages.
    runs.sort_by_cached_key(|run| {
        let placement = Placement::of(run.case, 2, run.cni);
        format!("{:?}", placement.map(|placement| placement.plan()).ok())
    });
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut stage = None;
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = run.play(&mut stage) {
                        // What went wrong may go on.
                        stage = None;
                        let (name, cni, family) = (&run.case.name, run.cni, run.family);
                        let failure = format!("{name} ({cni:?}, IPv{family}): {error:#}");
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
    play_all(&Corpus::E2e.cases()?, true)
}

#[test]
fn recipes_hold() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    play_all(&Corpus::Recipes.cases()?, false)
}

#[test]
fn every_tenth_case_of_cyclonus_holds() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let cases = Corpus::Cyclonus.cases()?.into_iter().step_by(10);
    play_all(&cases.collect::<Vec<_>>(), false)
}
