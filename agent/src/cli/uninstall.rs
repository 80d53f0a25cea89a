//! `palisade uninstall`.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use super::{Exit, SOCKET, print};
use crate::{
    cni::folders::Folders,
    config::plugin_folder,
    uninstall::{
        Places, Report,
        cluster::{self, DaemonSetName},
        node,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the pins, in a BPF file system.
    #[arg(long, value_name = "DIR", env = "PALISADE_BPFFS", default_value = crate::config::BPFFS)]
    bpffs: PathBuf,
    /// Where the agent listens.
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Folder of what outlives the node's next start.
    #[arg(long, value_name = "DIR", env = "PALISADE_STATE_DIR", default_value = crate::config::STATE)]
    state_dir: PathBuf,
    /// Folder of the runtime's lists of network plugins.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d"
    )]
    cni_conf_dir: PathBuf,
    /// Folder of the runtime's network plugins.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_CNI_BIN_DIR",
        default_value = "/opt/cni/bin"
    )]
    cni_bin_dir: PathBuf,
    /// Switch the agents of this DaemonSet to uninstall mode, and wait until every node is clean. Deletes no object.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    daemonset: Option<DaemonSetName>,
    /// For how many seconds to wait for nodes.
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "daemonset",
        default_value_t = 240
    )]
    timeout: u64,
    /// How to reach the API server, as for the agent.
    #[arg(
        long,
        value_name = "PATH",
        env = "PALISADE_KUBECONFIG",
        requires = "daemonset"
    )]
    kubeconfig: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(name) = &args.daemonset {
        let timeout = Duration::from_secs(args.timeout);
        cluster::clean(args.kubeconfig.as_deref(), name, timeout, &mut |line| {
            print(&format!("{line}\n"));
        })?;
        return Ok(Exit::Yes);
    }
    let report = node(&Places {
        bpffs: args.bpffs.clone(),
        socket: args.socket.clone(),
        state: args.state_dir.clone(),
        records: plugin_folder(&args.socket),
        plugin: Some(Folders {
            lists: args.cni_conf_dir.clone(),
            programs: args.cni_bin_dir.clone(),
        }),
    })?;
    print(&text(&report));
    Ok(match report.left.is_empty() {
        true => Exit::Yes,
        false => Exit::No,
    })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let lines = report.removed.iter().map(|trace| ("removed", trace));
    for (word, trace) in lines.chain(report.left.iter().map(|trace| ("left", trace))) {
        writeln!(text, "{word}: {trace}").expect("a String takes every text");
    }
    text.push_str(match (report.left.len(), report.removed.len()) {
        (0, 0) => "nothing of Palisade was on this node\n",
        (0, _) => "nothing of Palisade is left on this node\n",
        _ => "this node is not clean\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_what_went_and_what_stays() {
        let mut report = Report::default();
        assert_eq!(text(&report), "nothing of Palisade was on this node\n");
        report.removed.push("/sys/fs/bpf/palisade".to_owned());
        let gone = "removed: /sys/fs/bpf/palisade\n";
        let clean = "nothing of Palisade is left on this node\n";
        assert_eq!(text(&report), format!("{gone}{clean}"));
        report.left.push("clsact filter at egress of a".to_owned());
        let left = "left: clsact filter at egress of a\nthis node is not clean\n";
        assert_eq!(text(&report), format!("{gone}{left}"));
    }
}
