//! `palisade probe`.

use std::{fmt::Write as _, time::Duration};

use anyhow::ensure;
use palisade_policy::model::Name;

use super::{Exit, Output, complain, flows::summary, print, print_json, scope::block_on};
use crate::{
    cluster::{Access, Cluster, agents::Selection},
    connectivity::wire::Outcome,
    explain::{End, Port},
    probe::{Attempt, Goal, Prober, Report},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pod that connections are opened from: NAMESPACE/POD.
    #[arg(long, value_name = "NS/POD", value_parser = pod)]
    from: Name,
    /// Whereto: NAMESPACE/POD, service/NAMESPACE/NAME, an address or a name that the pod resolves, each with :PORT or
    /// :PORT/PROTOCOL. Of a Service without a port each of its ports is tried.
    #[arg(long, value_name = "TARGET")]
    to: Goal,
    /// At which port, in place of one in --to: PORT/PROTOCOL, or PORT of TCP.
    #[arg(long, value_name = "PORT/PROTO")]
    port: Option<Port>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    agents: Selection,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Flags of whoever opens connections.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// For how many seconds an answer to a connection is waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// The image of the container that opens connections, one of palisade [default: that of the agents, else of this
    /// version].
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

impl How {
    /// Who opens them in that cluster.
    pub(super) async fn prober(
        &self,
        access: &Access,
        agents: &Selection,
    ) -> anyhow::Result<Prober> {
        let cluster = Cluster::connect(access).await?;
        let patience = Duration::from_secs(self.timeout);
        Prober::new(cluster, agents, self.image.as_deref(), patience).await
    }
}

/// Reads `--from`.
fn pod(text: &str) -> Result<Name, String> {
    match text.parse() {
        Ok(End::Pod(name)) => Ok(name),
        _ => Err("expected NAMESPACE/POD: connections are opened from a pod".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Exit {
    match block_on(probe(args)) {
        Ok(report) => {
            match args.output {
                Output::Json => print_json(&report),
                Output::Text => print(&text(&report)),
            }
            for (node, why) in &report.unavailable {
                complain(format_args!("node {node} tells no verdicts: {why}"));
            }
            match report.passes() {
                Some(true) => Exit::Yes,
                Some(false) => Exit::No,
                None => Exit::Unknown,
            }
        }
        Err(error) => {
            complain(format_args!("{error:#}"));
            Exit::Unknown
        }
    }
}

async fn probe(args: &Args) -> anyhow::Result<Report> {
    let mut goal = args.to.clone();
    ensure!(
        args.port.is_none() || goal.port.is_none(),
        "--to and --port both name a port"
    );
    goal.port = goal.port.or(args.port);
    let mut prober = args.how.prober(&args.access, &args.agents).await?;
    prober.probe(&args.from, &goal).await
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for attempt in &report.attempts {
        let Attempt {
            target,
            protocol,
            outcome,
            took_ms,
            ..
        } = attempt;
        let from = &report.from;
        let took = match outcome {
            Outcome::Silent => format!("within {took_ms} ms"),
            _ => format!("after {took_ms} ms"),
        };
        writeln!(
            text,
            "{from} -> {target}/{protocol}: {outcome} {took}{}",
            meaning(attempt)
        )
        .expect("a String takes every text");
        for verdict in &attempt.verdicts {
            let line = summary(&verdict.flow, &verdict.node);
            writeln!(text, "  {:<9} {line}", verdict.program).expect("a String takes every text");
        }
        if attempt.verdicts.is_empty() {
            text += "  no agent told of a verdict: neither end is isolated there, or no agent is at work\n";
        }
    }
    text
}

/// What an outcome says of policy, where that is not plain.
fn meaning(attempt: &Attempt) -> &'static str {
    match (attempt.outcome, attempt.passes) {
        (Outcome::Answered, _) => "",
        (_, Some(false)) => ", denied",
        (Outcome::Refused, _) => ", so it passes, but nobody listens",
        (Outcome::Silent, Some(true)) => ", but it passes: the other end may have nothing to say",
        (Outcome::Silent, _) => ", and no policy denies it as far as is known: nobody may be there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use super::*;
    use crate::connectivity::wire::Protocol;

    #[test]
    fn connections_are_opened_from_pods() {
        assert_eq!(pod("shop/web"), Ok(Name::new("shop", "web")));
        for wrong in ["10.0.0.1", "service/shop/web", "web", ""] {
            assert!(pod(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_came_back_is_said_and_what_it_means() {
        let said = |outcome, passes| {
            text(&Report {
                from: "shop/web".to_owned(),
                to: "shop/api".to_owned(),
                attempts: vec![Attempt {
                    target: SocketAddr::from(([10, 0, 0, 1], 80)),
                    protocol: Protocol::Tcp,
                    outcome,
                    took_ms: 3,
                    source_port: 40000,
                    passes,
                    verdicts: Vec::new(),
                }],
                unavailable: BTreeMap::new(),
            })
        };
        let answered = said(Outcome::Answered, Some(true));
        assert!(
            answered.starts_with("shop/web -> 10.0.0.1:80/TCP: answered after 3 ms\n"),
            "{answered}"
        );
        assert!(said(Outcome::Silent, Some(false)).contains("no answer within 3 ms, denied\n"));
        assert!(said(Outcome::Refused, Some(true)).contains("nobody listens\n"));
    }
}
