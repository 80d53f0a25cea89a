//! The flows of a whole cluster: every agent is asked for its own, and they are put in the order of time.
//!
//! Agents are asked for all that they remember, and filters applied here: so the last twenty are those of the cluster.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Args, Fault, Filters, PERIOD, time};
use crate::{
    api::proto::Flow,
    cli::complain,
    cluster::{
        Cluster,
        agents::{self, Agent, Answer, Selection},
    },
};

/// The flag by which agents tell of allowed flows, too.
const ALLOWED: &str = "--allowed";
/// After how long an agent is asked again that answers no more: it may be replaced.
const AGAIN: Duration = Duration::from_secs(2);

/// A line of an agent.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    Lost { lost: u64 },
    Flow(Box<Flow>),
}

/// What an agent tells, and its node.
type OfNode = (String, Told);

pub(super) async fn show(args: &Args) -> Result<(), Fault> {
    let (cluster, agents) = args.scope.cluster().await?;
    let patience = Duration::from_secs(args.scope.agents.request_timeout);
    let (since, last) = (
        args.since.map(|since| since.to_string()),
        usize::MAX.to_string(),
    );
    let mut command = vec!["flows", "-o", "json"];
    match &since {
        Some(since) => command.extend(["--since", since]),
        None => command.extend(["--last", &last]),
    }
    command.extend(args.allowed.then_some(ALLOWED));
    let filters = Filters::from(&args.selection);
    let lines = args.lines();
    // What comes meanwhile comes twice rather than never; its number tells.
    let answers = agents::ask(&cluster, &agents, &command, patience).await;
    let (told, unavailable) = merge(answers);
    if let Some(complaint) = missing(&unavailable) {
        complain(format_args!("{complaint}"));
    }
    if unavailable.len() == agents.len() {
        return Err(anyhow::anyhow!("no agent answers").into());
    }
    let newest = |node: &str| {
        let of_node = told.iter().filter(|(of, _)| of == node);
        of_node.map(|(_, flow)| flow.number).max().unwrap_or(0)
    };
    let news: Vec<_> = agents.iter().map(|agent| newest(&agent.node)).collect();
    let wanted: Vec<_> = told.iter().filter(|(_, flow)| filters.take(flow)).collect();
    let mut out = io::stdout().lock();
    for (node, flow) in wanted.iter().skip(wanted.len().saturating_sub(args.most())) {
        lines.write(&mut out, flow, Some(node))?;
    }
    out.flush()?;
    if !args.follow {
        return Ok(());
    }

    let (tell, mut told) = unbounded_channel();
    let followed = stream::iter(agents.iter().zip(news))
        .map(|(agent, newest)| follow(&cluster, agent.clone(), newest, args.allowed, tell.clone()))
        .buffer_unordered(agents.len())
        .collect::<()>();
    let written = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            let mut some: Vec<OfNode> = Vec::new();
            while let Ok(one) = told.try_recv() {
                some.push(one);
            }
            some.sort_by_key(|(_, told)| match told {
                Told::Flow(flow) => time(flow),
                Told::Lost { .. } => None,
            });
            for (node, told) in some {
                match told {
                    Told::Lost { lost } => lines.write_lost(&mut out, lost, Some(&node))?,
                    Told::Flow(flow) if filters.take(&flow) => {
                        lines.write(&mut out, &flow, Some(&node))?;
                    }
                    Told::Flow(_) => {}
                }
            }
            out.flush()?;
        }
    };
    tokio::select! {
        () = followed => Ok(()),
        ended = written => ended,
    }
}

/// The flows of all nodes by time, and the nodes that told none, and why.
fn merge(answers: Vec<Answer>) -> (Vec<(String, Flow)>, Vec<String>) {
    let (mut flows, mut unavailable) = (Vec::new(), Vec::new());
    for answer in answers {
        let node = &answer.node;
        match answer.flows() {
            Ok(read) => flows.extend(read.into_iter().map(|flow| (node.clone(), flow))),
            Err(why) => unavailable.push(format!("{node} ({why})")),
        }
    }
    flows.sort_by_key(|(node, flow)| (time(flow), node.clone(), flow.number));
    (flows, unavailable)
}

/// Says which nodes are not heard.
fn missing(unavailable: &[String]) -> Option<String> {
    let count = unavailable.len();
    let names = unavailable.join(", ");
    match count {
        0 => None,
        1 => Some(format!("1 node is unavailable: {names}")),
        _ => Some(format!("{count} nodes are unavailable: {names}")),
    }
}

/// Tells what an agent tells from that number on, and of its successors all.
async fn follow(
    cluster: &Cluster,
    mut agent: Agent,
    mut newest: u64,
    allowed: bool,
    tell: UnboundedSender<OfNode>,
) {
    let all = usize::MAX.to_string();
    let mut silent = false;
    loop {
        let mut command = vec!["flows", "-o", "json", "--follow", "--end-with-input"];
        command.extend(["--last", &all]);
        command.extend(allowed.then_some(ALLOWED));
        match agents::start(cluster, &agent, &command).await {
            Ok(mut process) => {
                silent = false;
                while let Ok(Some(line)) = process.line().await {
                    let Ok(told) = serde_json::from_str(&line) else {
                        continue;
                    };
                    if let Told::Flow(flow) = &told {
                        if flow.number <= newest {
                            continue;
                        }
                        newest = flow.number;
                    }
                    if tell.send((agent.node.clone(), told)).is_err() {
                        return;
                    }
                }
            }
            Err(error) if !silent => {
                silent = true;
                complain(format_args!(
                    "1 node is unavailable: {} ({error})",
                    agent.node
                ));
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
        let own = Selection {
            node: vec![agent.node.clone()],
            agent_namespace: Some(agent.place.namespace.clone()),
            ..Selection::default()
        };
        let found = agents::find(cluster, &own).await;
        if let Some(found) = found.ok().and_then(|found| found.into_iter().next()) {
            if found.place != agent.place {
                newest = 0;
            }
            agent = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flows::line::tests::flow;

    fn answer(node: &str, times: &[&str]) -> Answer {
        let lines = times.iter().map(|time| {
            let mut flow = flow();
            flow.time = (*time).to_owned();
            serde_json::to_string(&flow).expect("JSON") + "\n"
        });
        Answer {
            node: node.to_owned(),
            said: Ok(lines.collect()),
        }
    }

    #[test]
    fn flows_of_all_nodes_are_in_the_order_of_time() {
        let silent = Answer {
            node: "n3".to_owned(),
            said: Err("no answer within 10 s".to_owned()),
        };
        let answers = vec![
            answer("n1", &["2026-01-02T03:04:05Z", "2026-01-02T03:04:07Z"]),
            // The same moment, with another precision.
            answer(
                "n2",
                &["2026-01-02T03:04:05.5Z", "2026-01-02T03:04:07.000Z"],
            ),
            silent,
        ];
        let (flows, unavailable) = merge(answers);
        let nodes: Vec<_> = flows.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(nodes, ["n1", "n2", "n1", "n2"]);
        assert_eq!(
            missing(&unavailable).as_deref(),
            Some("1 node is unavailable: n3 (no answer within 10 s)")
        );
        assert_eq!(missing(&[]), None);
    }

    #[test]
    fn an_answer_that_is_no_flow_makes_its_node_unavailable() {
        let garbage = Answer {
            node: "n1".to_owned(),
            said: Ok("hello\n".to_owned()),
        };
        let (flows, unavailable) = merge(vec![garbage]);
        assert_eq!((flows.len(), unavailable.len()), (0, 1));
    }

    #[test]
    fn what_is_lost_is_told_apart_from_flows() {
        let lost: Told = serde_json::from_str(r#"{"lost":3}"#).expect("JSON");
        assert!(matches!(lost, Told::Lost { lost: 3 }));
        let line = serde_json::to_string(&flow()).expect("JSON");
        let told: Told = serde_json::from_str(&line).expect("JSON");
        assert!(matches!(told, Told::Flow(_)));
    }
}
