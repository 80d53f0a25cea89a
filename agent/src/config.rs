//! What the agent is told when it starts.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

/// Where maps, programs and links are pinned.
pub const BPFFS: &str = "/sys/fs/bpf/palisade";

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
    #[arg(
        long,
        value_name = "PATH",
        env = "PALISADE_SOCKET",
        default_value = "/run/palisade/palisade.sock"
    )]
    pub socket: PathBuf,

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

    /// How programs are attached.
    #[arg(long, value_enum, env = "PALISADE_ATTACH", default_value_t)]
    pub attach: Attach,

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

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
