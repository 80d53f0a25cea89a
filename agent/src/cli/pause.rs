//! `palisade pause`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{
    Exit, SOCKET, complain, print,
    scope::{Asked, Scope, block_on},
};
use crate::{
    api::{client, proto::Pause},
    cluster::{Cluster, Kind, agents, reason},
    source::convert::mode::{MODE, MODE_UNTIL},
};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// For how long, as 30m or 2h.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, group = "what")]
    time: Option<u64>,
    /// End it now.
    #[arg(long, group = "what")]
    end: bool,
    /// All pods of all nodes of the cluster. Without this, --node or --namespace it is those of this node.
    #[arg(long, conflicts_with_all = ["namespace", "node", "socket"])]
    all: bool,
    /// The pods of this namespace, on all nodes.
    #[arg(short, long, value_name = "NS", conflicts_with_all = ["node", "socket"])]
    namespace: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Reads `--for`.
fn seconds(text: &str) -> Result<u64, String> {
    let time: SignedDuration = text
        .parse()
        .map_err(|_error| "expected a duration, as 30m".to_owned())?;
    match u64::try_from(time.as_secs()) {
        Ok(seconds @ 1..) => Ok(seconds),
        _ => Err("expected a second at least".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let seconds = args.time.unwrap_or(0);
    let nodes = args.all || !args.scope.agents.node.is_empty();
    let done = match (&args.namespace, args.scope.asked()) {
        (Some(namespace), _) => block_on(pause_namespace(&args.scope, namespace, seconds)),
        (None, Asked::Agent(socket)) if !nodes => pause_node(&socket, seconds),
        (None, _) if nodes => block_on(pause_nodes(&args.scope, seconds)),
        (None, _) => Err(anyhow::anyhow!(
            "there is no agent at {SOCKET}: --all, --node or --namespace says who is meant"
        )),
    };
    match done {
        Ok(said) => {
            print(&said);
            Exit::Yes
        }
        Err(error) => {
            complain(format_args!("{error:#}"));
            Exit::Unknown
        }
    }
}

fn pause_node(socket: &Path, seconds: u64) -> anyhow::Result<String> {
    let Pause { until } = client::post(socket, &format!("/v1/pause?seconds={seconds}"))?;
    Ok(match until {
        Some(until) => format!("this node is in audit until {until}\n"),
        None => "this node is not paused\n".to_owned(),
    })
}

/// Has every agent pause its node. Nodes that do not answer are an error: they go on to deny.
async fn pause_nodes(scope: &Scope, seconds: u64) -> anyhow::Result<String> {
    let (cluster, agents) = scope.cluster().await?;
    let time = format!("{seconds}s");
    let command = match seconds {
        0 => vec!["pause", "--end"],
        _ => vec!["pause", "--for", &time],
    };
    let patience = Duration::from_secs(scope.agents.request_timeout);
    let answers = agents::ask(&cluster, &agents, &command, patience).await;
    let mut said = String::new();
    let mut silent = Vec::new();
    for answer in answers {
        match answer.said {
            Ok(text) => said += &format!("{}: {text}", answer.node),
            Err(fault) => silent.push(format!("{}: {fault}", answer.node)),
        }
    }
    print(&said);
    ensure!(
        silent.is_empty(),
        "nodes that go on as before: {}",
        silent.join("; ")
    );
    Ok(String::new())
}

/// Annotates the namespace; the agents do the rest.
async fn pause_namespace(scope: &Scope, name: &str, seconds: u64) -> anyhow::Result<String> {
    let until = (seconds > 0)
        .then(|| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Timestamp::now().checked_add(SignedDuration::from_secs(seconds))
        })
        .transpose()?
        // Whole seconds, as people write them.
        .map(|until| Timestamp::from_second(until.as_second()))
        .transpose()?;
    let mode = until.map(|_| "audit");
    let until = until.map(|until| until.to_string());
    let annotations = json!({ MODE: mode, MODE_UNTIL: until });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let cluster = Cluster::connect(&scope.access).await?;
    let namespaces = cluster.objects(Kind::Namespace, None);
    namespaces
        .patch_metadata(name, &PatchParams::default(), &patch)
        .await
        .map_err(|error| anyhow::anyhow!(reason(&error)))
        .with_context(|| format!("while annotating namespace {name}"))?;
    Ok(match until {
        Some(until) => format!("namespace {name} is in audit until {until}\n"),
        None => format!("namespace {name} is enforced\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_second_at_least() {
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        for wrong in ["", "0s", "-5m", "soon", "500ms"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
