//! `palisade pause`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Exit, SOCKET, complain, print};
use crate::{
    api::{client, proto::Pause},
    source::{
        convert::mode::{MODE, MODE_UNTIL},
        kube::configuration,
    },
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
    /// This namespace, on all nodes, in place of all pods of this node.
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// How to reach the API server, for --namespace; without it the variable KUBECONFIG says so.
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Where the agent listens.
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
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
    let done = match &args.namespace {
        Some(namespace) => pause_namespace(args.kubeconfig.as_deref(), namespace, seconds),
        None => pause_node(&args.socket, seconds),
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

/// Annotates the namespace; its agents do the rest.
fn pause_namespace(kubeconfig: Option<&Path>, name: &str, seconds: u64) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("while starting")?;
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
    runtime
        .block_on(async {
            let client = Client::try_from(configuration(kubeconfig).await?)?;
            let api = Api::<Namespace>::all(client);
            api.patch_metadata(name, &PatchParams::default(), &patch)
                .await?;
            anyhow::Ok(())
        })
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
