//! `palisade status`.

use std::{
    fmt::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use jiff::SignedDuration;

use super::{
    Exit, Output, complain, print, print_json,
    scope::{Asked, Scope, block_on},
    table::Table,
};
use crate::{
    api::{
        client,
        proto::{AuditStatus, AuditedNamespace, DirectionStatus, DriftStatus, PodStatus, Status},
    },
    cluster::{agents, status::ClusterStatus},
};

mod cluster;

/// How often to look while waiting.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wait until everything that should be enforced is.
    #[arg(long)]
    wait: bool,
    /// For how long at most, as 5m.
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = "5m")]
    wait_duration: SignedDuration,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

/// What was learnt.
enum Told {
    Agent(Box<Status>),
    Cluster(Box<ClusterStatus>),
}

impl Told {
    fn is_healthy(&self) -> bool {
        match self {
            Self::Agent(status) => status.healthy,
            Self::Cluster(status) => status.healthy,
        }
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let end = Instant::now() + args.wait_duration.unsigned_abs();
    let told = loop {
        let told = ask(args);
        let healthy = told.as_ref().is_ok_and(Told::is_healthy);
        if healthy || !args.wait || Instant::now() >= end {
            break told;
        }
        thread::sleep(LOOK);
    };
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    match (&told, args.output) {
        (Told::Agent(status), Output::Json) => print_json(status),
        (Told::Agent(status), Output::Text) => print(&text(status)),
        (Told::Cluster(status), Output::Json) => print_json(status),
        (Told::Cluster(status), Output::Text) => print(&cluster::text(status)),
    }
    if told.is_healthy() {
        Exit::Yes
    } else {
        Exit::No
    }
}

fn ask(args: &Args) -> anyhow::Result<Told> {
    Ok(match args.scope.asked() {
        Asked::Agent(socket) => Told::Agent(Box::new(ask_agent(&socket)?)),
        Asked::Cluster => Told::Cluster(Box::new(block_on(ask_cluster(&args.scope))?)),
    })
}

fn ask_agent(socket: &Path) -> anyhow::Result<Status> {
    Ok(client::get(socket, "/v1/status")?)
}

async fn ask_cluster(scope: &Scope) -> anyhow::Result<ClusterStatus> {
    let (cluster, agents) = scope.cluster().await?;
    let sets = agents::sets(&cluster, scope.agents.agent_namespace.as_deref()).await?;
    let patience = Duration::from_secs(scope.agents.request_timeout);
    let answers = agents::ask(&cluster, &agents, &["status", "-o", "json"], patience).await;
    Ok(ClusterStatus::new(sets, answers))
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    write(&mut text, status).expect("a String takes every text");
    text
}

fn write(text: &mut String, status: &Status) -> std::fmt::Result {
    let enforced = status.pods.iter().filter(|pod| pod.enforced).count();
    writeln!(
        text,
        "Node:      {} (palisade {})",
        status.node, status.version
    )?;
    for condition in &status.conditions {
        let name = format!("{}:", capitalized(&condition.name));
        let state = match &condition.reason {
            _ if condition.ok => "ok",
            Some(reason) => reason,
            None => "failed",
        };
        writeln!(text, "{name:<10} {state}")?;
    }
    if let Some(plugin) = &status.plugin {
        let state = match (&plugin.list, &plugin.reason) {
            (Some(list), _) if plugin.installed => format!("in {list}"),
            (_, reason) => format!("not installed: {}", reason.as_deref().unwrap_or_default()),
        };
        writeln!(text, "Plugin:    {state}")?;
    }
    writeln!(
        text,
        "Pods:      {enforced} of {} enforced, revision {}",
        status.pods.len(),
        status.revision
    )?;
    if status.drift != DriftStatus::default() {
        writeln!(text, "Drift:     {}", status.drift)?;
    }
    write_audit(text, &status.audit)?;
    if !status.pods.is_empty() {
        let mut table = Table::new([
            "NAMESPACE",
            "POD",
            "ADDRESSES",
            "INTERFACE",
            "INGRESS",
            "EGRESS",
            "ENFORCED",
        ]);
        for pod in &status.pods {
            table.row(row(pod));
        }
        write!(text, "\n{table}")?;
    }
    let unheld: Vec<_> = status
        .pods
        .iter()
        .filter_map(|pod| Some((pod, pod.unheld.as_ref()?)))
        .collect();
    if !unheld.is_empty() {
        let mut table = Table::new([
            "NAMESPACE",
            "POD",
            "STARTED BEFORE ITS POLICIES WERE IN FORCE",
        ]);
        for (pod, reason) in unheld {
            table.row([pod.namespace.clone(), pod.name.clone(), reason.clone()]);
        }
        write!(text, "\n{table}")?;
    }
    let missing: Vec<_> = status.exits.iter().filter(|exit| !exit.attached).collect();
    if !missing.is_empty() {
        let mut table = Table::new(["DEVICE", "INDEX", "NOT ATTACHED"]);
        for exit in missing {
            let reason = exit.reason.clone().unwrap_or_default();
            table.row([exit.name.clone(), exit.ifindex.to_string(), reason]);
        }
        write!(text, "\n{table}")?;
    }
    if !status.foreign.is_empty() {
        let mut table = Table::new(["PROGRAM OF OTHERS", "INDEX", "HOOK", "RUNS"]);
        for other in &status.foreign {
            let id = other.program.map(|id| id.to_string());
            table.row([
                other.name.clone().or(id).unwrap_or_default(),
                other.ifindex.to_string(),
                other.hook.clone(),
                if other.before { "before ours" } else { "after" }.to_owned(),
            ]);
        }
        write!(text, "\n{table}")?;
    }
    if !status.issues.is_empty() {
        writeln!(text, "\nIssues:")?;
        for issue in &status.issues {
            writeln!(text, "  {}", issue.message)?;
        }
    }
    Ok(())
}

fn write_audit(text: &mut String, audit: &AuditStatus) -> std::fmt::Result {
    if let Some(until) = &audit.paused_until {
        writeln!(
            text,
            "Audit:     every pod of this node, paused until {until}"
        )?;
    } else if audit.all {
        writeln!(text, "Audit:     every pod of this node")?;
    }
    for AuditedNamespace { namespace, until } in &audit.namespaces {
        let until = until.as_ref().map(|until| format!(" until {until}"));
        writeln!(
            text,
            "Audit:     namespace {namespace}{}",
            until.unwrap_or_default()
        )?;
    }
    if !audit.incomplete.is_empty() {
        let pods = audit.incomplete.join(", ");
        writeln!(
            text,
            "Audit:     for want of room not all is told of {pods}"
        )?;
    }
    Ok(())
}

fn row(pod: &PodStatus) -> [String; 7] {
    let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
    [
        pod.namespace.clone(),
        pod.name.clone(),
        or_dash(addresses.join(",")),
        or_dash(pod.interface.clone().unwrap_or_default()),
        isolation(&pod.ingress),
        isolation(&pod.egress),
        pod.enforcement(),
    ]
}

/// The policies that isolate a pod in a direction.
pub(super) fn isolation(direction: &DirectionStatus) -> String {
    match direction.policies.len() {
        0 if direction.isolated => "isolated".to_owned(),
        0 => "open".to_owned(),
        _ => {
            let policies = direction.policies.iter();
            let policies = policies.map(|policy| match direction.audited.contains(policy) {
                true => format!("{policy} (audit)"),
                false => policy.clone(),
            });
            policies.collect::<Vec<_>>().join(",")
        }
    }
}

/// What a cell says that would be empty.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

impl PodStatus {
    /// Whether its policies are in force, or why not.
    pub(super) fn enforcement(&self) -> String {
        match &self.reason {
            _ if self.enforced => "yes".to_owned(),
            Some(reason) => format!("no: {reason}"),
            None => "no".to_owned(),
        }
    }
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
