//! A whole test: makes what it needs, tries every scenario, several at once, and takes everything away again, however it
//! ended.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use regex_lite::Regex;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    lane::Lane,
    report::{Expectation, Marks, Ran, Report},
    scenario::{self, Scenario},
    stage::{Plan, Stage},
};
use crate::cluster::{Cluster, agents};

/// Which scenarios, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenarios.
    pub filters: Vec<Filter>,
    /// What to make; its image may be empty, and is found then.
    pub plan: Plan,
    /// How long what is expected may take to come true.
    pub timeout: Duration,
    /// Against what outcomes are held.
    pub expectation: Expectation,
    /// How lines begin.
    pub marks: Marks,
}

/// A regular expression over the names of scenarios, one that has to match or, after `!`, one that may not.
#[derive(Clone, Debug)]
pub struct Filter {
    expression: Regex,
    negated: bool,
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (negated, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let expression = Regex::new(text).map_err(|error| error.to_string())?;
        Ok(Self {
            expression,
            negated,
        })
    }
}

/// Of all scenarios those that one of the filters wants, if any wants some, and none refuses.
#[must_use]
pub fn select(all: Vec<Scenario>, filters: &[Filter]) -> Vec<Scenario> {
    let matches = |filter: &Filter, scenario: &Scenario| filter.expression.is_match(&scenario.name);
    let (refuse, want): (Vec<_>, Vec<_>) = filters.iter().partition(|filter| filter.negated);
    let wanted = |scenario: &Scenario| {
        let any = want.is_empty() || want.iter().any(|filter| matches(filter, scenario));
        any && !refuse.iter().any(|filter| matches(filter, scenario))
    };
    all.into_iter().filter(wanted).collect()
}

/// Tries the scenarios and tells of each; what came of them.
///
/// # Errors
///
/// Nothing can be said of policies: the cluster cannot be reached, pods do not start or do not reach each other before
/// there is a policy, the test was interrupted, or something of it is left.
pub async fn run(
    cluster: &Cluster,
    options: &Options,
    tell: &dyn Fn(&str),
) -> anyhow::Result<Report> {
    let scenarios = select(scenario::all()?, &options.filters);
    ensure!(!scenarios.is_empty(), "no scenario has such a name");
    let mut plan = options.plan.clone();
    plan.lanes = plan.lanes.min(scenarios.len());
    let sets = agents::sets(cluster, None).await;
    // Whoever may not see them may still test.
    let sets = sets.unwrap_or_default();
    if plan.image.is_empty() {
        let of_agents = sets.iter().find_map(|set| set.image.clone());
        plan.image =
            of_agents.unwrap_or_else(|| concat!("palisade:", env!("CARGO_PKG_VERSION")).to_owned());
    }
    let stage = Stage::new(cluster.clone(), plan.clone()).await?;
    tell(&format!(
        "{} tests, {} at once, on {}; pods of {}; {}",
        scenarios.len(),
        plan.lanes,
        stage.nodes.join(" and "),
        plan.image,
        match sets.first() {
            Some(set) => format!(
                "agents of Palisade: {}, {} of {} ready",
                set.name, set.ready, set.desired
            ),
            None => "no agents of Palisade".to_owned(),
        }
    ));
    let report = tokio::select! {
        report = attempt(cluster, &stage, scenarios, options, tell) => report,
        interrupted = interruption() => interrupted.and_then(|()| bail!("interrupted")),
    };
    let removed = tokio::select! {
        removed = stage.remove() => removed,
        interrupted = interruption() => interrupted.and_then(|()| bail!("interrupted")),
    };
    let report = report?;
    removed.context("while removing what the test made")?;
    Ok(report)
}

async fn attempt(
    cluster: &Cluster,
    stage: &Stage,
    scenarios: Vec<Scenario>,
    options: &Options,
    tell: &dyn Fn(&str),
) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let sets = stage.build().await?;
    let opened = sets
        .into_iter()
        .map(|set| Lane::open(cluster, set, options.timeout));
    let lanes = try_join_all(opened).await?;
    let families: BTreeSet<_> = lanes.iter().flat_map(Lane::families).collect();
    let families: Vec<_> = families.into_iter().collect();
    tell(&format!(
        "pods reach each other by {} after {:.0} s",
        families.join(" and "),
        begun.elapsed().as_secs_f64()
    ));

    let all = scenarios.len();
    let (alone, together): (VecDeque<_>, VecDeque<_>) =
        scenarios.into_iter().partition(Scenario::is_alone);
    let report = RefCell::new(Report {
        expectation: options.expectation,
        ran: Vec::new(),
    });
    let ended = |ran: Ran| {
        let mut report = report.borrow_mut();
        let number = report.ran.len() + 1;
        tell(&report.line(&ran, (number, all), options.marks));
        report.ran.push(ran);
    };
    let queue = RefCell::new(together);
    try_join_all(lanes.iter().map(|lane| drain(lane, &queue, &ended))).await?;
    let queue = RefCell::new(alone);
    if let Some(lane) = lanes.first() {
        drain(lane, &queue, &ended).await?;
    }
    Ok(report.into_inner())
}

/// Tries what is left, one after the other.
async fn drain(
    lane: &Lane<'_>,
    queue: &RefCell<VecDeque<Scenario>>,
    ended: &impl Fn(Ran),
) -> anyhow::Result<()> {
    loop {
        let next = queue.borrow_mut().pop_front();
        let Some(scenario) = next else {
            return Ok(());
        };
        ended(lane.run(&scenario).await?);
    }
}

/// Comes when the process is told to end.
async fn interruption() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("while listening for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("while listening for signals")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_want_and_refuse_names() -> anyhow::Result<()> {
        let names = |words: &[&str]| -> anyhow::Result<Vec<String>> {
            let filters: Result<Vec<Filter>, _> = words.iter().map(|word| word.parse()).collect();
            let filters = filters.map_err(anyhow::Error::msg)?;
            let selected = select(scenario::all()?, &filters);
            Ok(selected.into_iter().map(|scenario| scenario.name).collect())
        };
        let all = names(&[])?.len();
        assert_eq!(names(&["^itself$", "^replies$"])?, ["replies", "itself"]);
        let ingress = names(&["^ingress-"])?;
        assert!(
            ingress.iter().all(|name| name.starts_with("ingress-")),
            "{ingress:?}"
        );
        assert_eq!(names(&["!^ingress-"])?.len(), all - ingress.len());
        assert_eq!(
            names(&["^ingress-port", "!sctp", "!udp"])?.len(),
            names(&["^ingress-port"])?.len() - 2
        );
        assert!("(".parse::<Filter>().is_err());
        Ok(())
    }
}
