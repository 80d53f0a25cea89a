//! What a node is like, for one who wants to install an agent there. Nothing is changed.

use std::path::PathBuf;

use palisade_dataplane::{
    link::others::{Other, others},
    netlink::{Namespace, Netfilter, Socket},
};
use serde::Serialize;

use self::{cni::Plugins, enforcers::Traces};

mod cni;
mod enforcers;
mod kernel;
mod proxy;

/// How many programs of others are named.
const NAMED: usize = 5;

/// Where things lie on the node.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of pins.
    pub bpffs: PathBuf,
    /// Where the runtime looks for its network plugins.
    pub cni: PathBuf,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// Whether an agent can run all the same.
    pub ok: bool,
    /// What it means.
    pub severity: Severity,
    /// What was found.
    pub message: String,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is to be done.
    Ok,
    /// An agent can run; something may not be as expected.
    Warning,
    /// An agent cannot run.
    Error,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether an agent can run.
    pub ok: bool,
    /// What was found, in a fixed order; a check may have found several things.
    pub checks: Vec<Finding>,
}

impl Finding {
    fn new(name: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            name,
            ok: severity < Severity::Error,
            severity,
            message: message.into(),
        }
    }

    fn of(name: &'static str, result: Result<String, String>) -> Self {
        match result {
            Ok(message) => Self::new(name, Severity::Ok, message),
            Err(message) => Self::new(name, Severity::Error, message),
        }
    }
}

impl Report {
    /// Of these findings.
    #[must_use]
    pub fn of(checks: Vec<Finding>) -> Self {
        Self {
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

/// Looks at the node of the calling thread's network namespace.
#[must_use]
pub fn node(places: &Places) -> Report {
    let mut checks = kernel::check(&places.bpffs);
    checks.push(programs(others(&places.bpffs).map_err(message)));
    let plugins = cni::read(&places.cni);
    checks.push(cni::check(&places.cni, &plugins));
    match traces(places, &plugins) {
        Ok(traces) => {
            checks.push(proxy::check(&traces, proxy::ask));
            checks.extend(enforcers::check(&traces));
        }
        Err(error) => {
            let unknown = |name| Finding::new(name, Severity::Warning, error.clone());
            checks.extend([unknown("kube-proxy"), unknown("enforcers")]);
        }
    }
    Report::of(checks)
}

/// What may be told from.
fn traces(places: &Places, plugins: &Plugins) -> Result<Traces, String> {
    let links = Socket::open().and_then(|mut socket| socket.links(Namespace::Own));
    let mut filter = Netfilter::open().map_err(message)?;
    let root = places.bpffs.parent().unwrap_or(&places.bpffs);
    Ok(Traces {
        devices: links
            .map_err(message)?
            .into_iter()
            .map(|link| link.name)
            .collect(),
        tables: filter.tables().map_err(message)?,
        chains: filter
            .chains()
            .map_err(message)?
            .into_iter()
            .map(|chain| chain.name)
            .collect(),
        pins: enforcers::pins(root),
        plugins: plugins.types().map(str::to_owned).collect(),
        legacy: enforcers::legacy(),
    })
}

fn programs(found: Result<Vec<Other>, String>) -> Finding {
    const NAME: &str = "programs";
    match found {
        Ok(others) if others.is_empty() => {
            Finding::new(NAME, Severity::Ok, "none of others on any device")
        }
        Ok(others) => {
            let mut named: Vec<_> = others.iter().take(NAMED).map(ToString::to_string).collect();
            if others.len() > NAMED {
                named.push(format!("{} more", others.len() - NAMED));
            }
            let message = format!(
                "those of others may hide packets or change them: {}",
                named.join(", ")
            );
            Finding::new(NAME, Severity::Warning, message)
        }
        Err(error) => Finding::new(NAME, Severity::Warning, error),
    }
}

/// An error with its causes.
fn message(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

#[cfg(test)]
mod tests {
    use palisade_dataplane::link::others::Place;

    use super::*;

    #[test]
    fn only_an_error_keeps_an_agent_from_running() {
        let finding = |severity| Finding::new("a", severity, "b");
        let fine = [Severity::Ok, Severity::Warning].map(finding).to_vec();
        assert!(Report::of(fine.clone()).ok);
        assert!(!Report::of([fine, vec![finding(Severity::Error)]].concat()).ok);
    }

    #[test]
    fn of_many_programs_some_are_named() {
        assert_eq!(programs(Ok(Vec::new())).severity, Severity::Ok);
        let other = |index: usize| Other {
            device: format!("eth{index}"),
            place: Place::Xdp,
            name: (index == 0).then(|| "a".to_owned()),
        };
        let found = programs(Ok((0..7).map(other).collect()));
        assert_eq!(found.severity, Severity::Warning);
        let named = ": eth0 at XDP (a), eth1 at XDP, eth2 at XDP, eth3 at XDP, eth4 at XDP, 2 more";
        assert!(found.message.ends_with(named), "{}", found.message);
    }
}
