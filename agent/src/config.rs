//! What the agent is told when it starts.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use palisade_dataplane::load;
use serde_json::Value;

use self::entries::MapEntries;
use crate::{
    cni::{folders::Folders, install},
    telemetry::flow_log,
};

mod entries;

/// Where maps, programs and links are pinned.
pub const BPFFS: &str = "/sys/fs/bpf/palisade";
/// Where the agent listens for `status` and its siblings.
pub const SOCKET: &str = "/run/palisade/palisade.sock";

/// Where the chart's agents keep what outlives the node's next start.
pub const STATE: &str = "/var/lib/palisade";

/// Until when the node is paused: beside the socket, for it ends with the node.
pub const PAUSE: &str = "pause.json";
/// Who spoke with whom: in the folder of state.
pub const INVENTORY: &str = "inventory.json";

/// The files that an agent leaves to its successor, and what they are before they are whole.
pub fn kept(socket: &Path, state: &Path) -> [PathBuf; 4] {
    let pause = socket.with_file_name(PAUSE);
    let inventory = state.join(INVENTORY);
    [
        pause.with_extension("new"),
        pause,
        inventory.with_extension("new"),
        inventory,
    ]
}

/// Flags of `palisade agent`; each has an environment variable.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// This node's name, as pods have it in `spec.nodeName`.
    #[arg(long, value_name = "NAME", env = "PALISADE_NODE_NAME")]
    pub node_name: String,

    /// Folder of YAML or JSON files that hold the objects, in place of an API server; watched.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_MANIFESTS",
        conflicts_with = "kubeconfig"
    )]
    pub manifests: Option<PathBuf>,

    /// How to reach the API server. Without it the variable KUBECONFIG says so, or else the pod's ServiceAccount.
    #[arg(long, value_name = "PATH", env = "PALISADE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Folder of the runtime's network namespace files; may be given again.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_NETNS_DIR",
        value_delimiter = ',',
        default_values = ["/run/netns", "/var/run/netns"]
    )]
    pub netns_dir: Vec<PathBuf>,

    /// Folder of the pins, in a BPF file system. An agent holds it alone; another waits.
    #[arg(long, value_name = "DIR", env = "PALISADE_BPFFS", default_value = BPFFS)]
    pub bpffs: PathBuf,

    /// Where to listen for `status` and its siblings.
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,

    /// Folder of what is to outlive the node's next start: who spoke with whom. Without it that lies beside the socket.
    #[arg(long, value_name = "DIR", env = "PALISADE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// The network plugin.
    #[command(flatten)]
    pub plugin: Plugin,

    /// Where to serve /livez, /readyz and /metrics.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "PALISADE_HTTP",
        default_value = "127.0.0.1:9464"
    )]
    pub http: SocketAddr,

    /// What becomes of open connections when policy withdraws their permission.
    #[arg(
        long,
        value_enum,
        env = "PALISADE_EXISTING_CONNECTIONS",
        default_value_t
    )]
    pub existing_connections: ExistingConnections,

    /// Whether packets of a pod from an address that is not its own are dropped.
    #[arg(long, value_enum, env = "PALISADE_SPOOF_PROTECTION", default_value_t)]
    pub spoof_protection: Switch,

    /// What a pod gets whose new state does not fit into the kernel's maps.
    #[arg(long, value_enum, env = "PALISADE_ON_OVERFLOW", default_value_t)]
    pub on_overflow: OnOverflow,

    /// How much a map of the kernel holds, where that is not the default; may be given again. Maps that are other than before
    /// are made anew and filled before the programs use them, so that they grow without a gap.
    #[arg(
        long,
        value_name = "MAP=N",
        env = "PALISADE_MAP_ENTRIES",
        value_delimiter = ','
    )]
    pub map_entries: Vec<MapEntries>,

    /// Whether policy is enforced. In audit what it denies passes, and is told.
    #[arg(long, value_enum, env = "PALISADE_MODE", default_value_t)]
    pub mode: Mode,

    /// Whether the first packet of each allowed flow is told of, too.
    #[arg(
        long,
        value_enum,
        env = "PALISADE_ALLOWED_FLOWS",
        default_value = "off"
    )]
    pub allowed_flows: Switch,

    /// Events of each pod, direction and reason that are told of in a second, on each processor; the rest is counted.
    #[arg(
        long,
        value_name = "N",
        env = "PALISADE_EVENT_RATE",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub event_rate: u32,

    /// The flow log.
    #[command(flatten)]
    pub flows: Flows,

    /// How often what is in the maps is held against what was written, seconds. It takes half a percent of a processor at
    /// most.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "PALISADE_VERIFY_SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub verify_seconds: u64,

    /// How programs are attached.
    #[arg(long, value_enum, env = "PALISADE_ATTACH", default_value_t)]
    pub attach: Attach,

    /// What becomes of the order on a hook where a program of others has come before ours, and could hide packets from it. On
    /// one hook ours are moved three times in ten minutes at most.
    #[arg(long, value_enum, env = "PALISADE_HOOK_ORDER", default_value_t)]
    pub hook_order: HookOrder,

    /// Enforce nothing: remove everything from this node, and stay until told to end. /readyz says whether the node
    /// is clean. To this `palisade uninstall --daemonset` switches the agents of a cluster.
    #[arg(long)]
    pub uninstall: bool,

    /// What is logged: a level, or directives as of `tracing-subscriber`'s `EnvFilter`.
    #[arg(
        long,
        value_name = "FILTER",
        env = "PALISADE_LOG",
        default_value = "info"
    )]
    pub log: String,

    /// How it is logged.
    #[arg(long, value_enum, env = "PALISADE_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

impl Config {
    /// Whether allowed flows are told of.
    #[must_use]
    pub fn tells_allowed(&self) -> bool {
        self.allowed_flows == Switch::On || self.flows.flow_log == FlowLog::All
    }

    /// What each map holds that is not to hold the default.
    #[must_use]
    pub fn entries(&self) -> load::Entries {
        let entries = self.map_entries.iter();
        entries.map(|of| (of.map, of.entries)).collect()
    }
}

/// Where the network plugin meets the agent that listens there: beside it.
#[must_use]
pub fn plugin_folder(socket: &Path) -> PathBuf {
    socket.with_extension("cni")
}

/// Flags about the network plugin that holds a new pod back until its policies are in force.
#[derive(Clone, Debug, Args)]
pub struct Plugin {
    /// Folder of the runtime's lists of network plugins, as /etc/cni/net.d: the plugin is kept in the first of them. Without
    /// it new pods are not held back.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_CNI_CONF_DIR",
        requires = "cni_bin_dir"
    )]
    pub cni_conf_dir: Option<PathBuf>,

    /// Folder of the runtime's network plugins, as /opt/cni/bin.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_CNI_BIN_DIR",
        requires = "cni_conf_dir"
    )]
    pub cni_bin_dir: Option<PathBuf>,

    /// Whether it is kept there, or taken out.
    #[arg(long, value_enum, env = "PALISADE_CNI_PLUGIN", default_value_t)]
    pub cni_plugin: Switch,

    /// For how long a pod is held at most, seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "PALISADE_CNI_WAIT_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=30)
    )]
    pub cni_wait_seconds: u64,

    /// What becomes of a pod whose policies are not in force by then.
    #[arg(long, value_enum, env = "PALISADE_CNI_ON_TIMEOUT", default_value_t)]
    pub cni_on_timeout: OnTimeout,
}

impl Config {
    /// Where what outlives the node's next start is kept.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let beside = || self.socket.with_file_name("");
        self.state_dir.clone().unwrap_or_else(beside)
    }
}

impl Plugin {
    /// Where it is to be.
    #[must_use]
    pub fn folders(&self) -> Option<Folders> {
        Some(Folders {
            lists: self.cni_conf_dir.clone()?,
            programs: self.cni_bin_dir.clone()?,
        })
    }

    /// Its entry in the list; none where it is to be taken out. `folder` is where it meets the agent.
    #[must_use]
    pub fn entry(&self, folder: &Path) -> Option<Value> {
        let on_timeout = self.cni_on_timeout.name();
        (self.cni_plugin == Switch::On)
            .then(|| install::entry(self.cni_wait_seconds, on_timeout, folder))
    }
}

/// Flags of the flow log.
#[derive(Clone, Debug, Args)]
pub struct Flows {
    /// Which flows are logged, a JSON object a line; `all` asks for allowed flows too.
    #[arg(long, value_enum, env = "PALISADE_FLOW_LOG", default_value_t)]
    pub flow_log: FlowLog,

    /// The file of the flow log; standard output without.
    #[arg(long, value_name = "PATH", env = "PALISADE_FLOW_LOG_FILE")]
    pub flow_log_file: Option<PathBuf>,

    /// How large the file may grow before it is put aside, MiB.
    #[arg(
        long,
        value_name = "MIB",
        env = "PALISADE_FLOW_LOG_SIZE",
        default_value_t = 50,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub flow_log_size: u64,

    /// How many full files are kept.
    #[arg(
        long,
        value_name = "N",
        env = "PALISADE_FLOW_LOG_KEEP",
        default_value_t = 3
    )]
    pub flow_log_keep: u32,
}

impl Flows {
    /// Where the log is written.
    #[must_use]
    pub fn target(&self) -> flow_log::Target {
        match &self.flow_log_file {
            None => flow_log::Target::Output,
            Some(path) => flow_log::Target::File {
                path: path.clone(),
                size: self.flow_log_size * 1024 * 1024,
                kept: self.flow_log_keep,
            },
        }
    }
}

/// `--flow-log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlowLog {
    /// Nothing.
    Off,
    /// What is denied, or would be.
    #[default]
    Denied,
    /// Allowed flows, too.
    All,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// What policy does not allow is denied.
    #[default]
    Enforce,
    /// It passes, and is told, on every node whose agent is started so.
    Audit,
}

/// `--cni-on-timeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnTimeout {
    /// It does not start; the kubelet tries again.
    #[default]
    Deny,
    /// It starts, and `status` names it.
    Allow,
}

impl OnTimeout {
    /// As the plugin's entry has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// `--existing-connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExistingConnections {
    /// They are cut at their next packet.
    #[default]
    Revoke,
    /// They live on.
    Keep,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    #[default]
    On,
    /// No.
    Off,
}

/// `--on-overflow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnOverflow {
    /// Nothing passes.
    #[default]
    Deny,
    /// The last state that fitted stays.
    Keep,
}

/// `--attach`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// TCX links where the kernel has them, clsact filters else.
    #[default]
    Auto,
    /// TCX links (Linux 6.6).
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// `--hook-order`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HookOrder {
    /// Ours run first again, where they are held by TCX links.
    #[default]
    First,
    /// It stays, and `status` tells of it.
    Any,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
