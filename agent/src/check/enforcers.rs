//! Others that enforce NetworkPolicy, known by what they leave on a node.

use std::{fs, path::Path};

use super::{Finding, Severity};

const NAME: &str = "enforcers";
/// How deep pins are looked for, and how many.
const DEPTH: usize = 4;
const PINS: usize = 10_000;

/// What there is on a node that somebody has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// Names of network devices.
    pub(super) devices: Vec<String>,
    /// Names of nftables' tables.
    pub(super) tables: Vec<String>,
    /// Names of nftables' chains, and so of those that `iptables` makes by it.
    pub(super) chains: Vec<String>,
    /// What is pinned, from the top of the bpf filesystem.
    pub(super) pins: Vec<String>,
    /// The runtime's network plugins.
    pub(super) plugins: Vec<String>,
    /// Whether there are rules of the legacy `iptables`, which are not read.
    pub(super) legacy: bool,
}

/// Something that only one of them leaves: what a name begins with.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Device(&'static str),
    Table(&'static str),
    Chain(&'static str),
    Pin(&'static str),
    Plugin(&'static str),
}

use Mark::{Chain, Device, Pin, Plugin, Table};

const ENFORCERS: &[(&str, &[Mark])] = &[
    (
        "Antrea",
        &[Device("antrea-gw"), Chain("ANTREA-"), Plugin("antrea")],
    ),
    ("AWS network policy agent", &[Pin("globals/aws/programs/")]),
    ("Azure NPM", &[Chain("AZURE-NPM")]),
    (
        "Calico",
        &[
            Device("cali"),
            Device("vxlan.calico"),
            Device("bpfin.cali"),
            Table("calico"),
            Chain("cali-"),
            Pin("tc/globals/cali_"),
            Pin("calico/"),
            Plugin("calico"),
        ],
    ),
    (
        "Cilium",
        &[
            Device("cilium_"),
            Chain("CILIUM_"),
            Pin("tc/globals/cilium_"),
            Pin("cilium/"),
            Plugin("cilium-cni"),
        ],
    ),
    ("kindnet", &[Table("kindnet-network-policies")]),
    ("kube-network-policies", &[Table("kube-network-policies")]),
    (
        "Kube-OVN",
        &[Device("ovn0"), Device("mirror0"), Plugin("kube-ovn")],
    ),
    (
        "kube-router",
        &[
            Chain("KUBE-NWPLCY-"),
            Chain("KUBE-POD-FW-"),
            Chain("KUBE-ROUTER-"),
        ],
    ),
    (
        "OVN-Kubernetes",
        &[Device("ovn-k8s-mp"), Plugin("ovn-k8s-cni-overlay")],
    ),
    ("Weave Net", &[Chain("WEAVE-NPC"), Plugin("weave-net")]),
];

impl Traces {
    /// The trace that bears a mark, in words.
    fn bears(&self, mark: Mark) -> Option<String> {
        let (kind, names, start) = match mark {
            Device(start) => ("device", &self.devices, start),
            Table(start) => ("table", &self.tables, start),
            Chain(start) => ("chain", &self.chains, start),
            Pin(start) => ("pin", &self.pins, start),
            Plugin(start) => ("plugin", &self.plugins, start),
        };
        let name = names.iter().find(|name| name.starts_with(start))?;
        Some(format!("{kind} {name}"))
    }

    /// The mode of kube-proxy whose traces these are. One that was changed may leave those of the former; the
    /// chains of iptables last longest.
    pub(super) fn proxy(&self) -> Option<&'static str> {
        let modes = [
            ("ipvs", Device("kube-ipvs0")),
            ("nftables", Table("kube-proxy")),
            ("iptables", Chain("KUBE-SERVICES")),
        ];
        let mut modes = modes.into_iter();
        modes.find_map(|(mode, mark)| self.bears(mark).map(|_| mode))
    }
}

pub(super) fn check(traces: &Traces) -> Vec<Finding> {
    let mut findings: Vec<_> = ENFORCERS
        .iter()
        .filter_map(|(name, marks)| {
            let found: Vec<_> = marks
                .iter()
                .filter_map(|mark| traces.bears(*mark))
                .collect();
            let message = format!(
                "{name} ({}): what it denies is denied, whatever Palisade allows",
                found.join(", ")
            );
            (!found.is_empty()).then(|| Finding::new(NAME, Severity::Warning, message))
        })
        .collect();
    if findings.is_empty() {
        let message = match traces.legacy {
            true => "no other is seen, but for legacy iptables, which is not read",
            false => "no other is seen",
        };
        findings.push(Finding::new(NAME, Severity::Ok, message));
    }
    findings
}

/// What is pinned below a folder, as paths from there; folders end in a slash.
pub(super) fn pins(root: &Path) -> Vec<String> {
    let mut pins = Vec::new();
    let mut folders = vec![(root.to_owned(), 1)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(name) = path.strip_prefix(root) else {
                continue;
            };
            let mut name = name.display().to_string();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                name.push('/');
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            }
            pins.push(name);
            if pins.len() == PINS {
                return pins;
            }
        }
    }
    pins.sort_unstable();
    pins
}

/// Whether the legacy `iptables` has tables here.
pub(super) fn legacy() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|file| fs::read_to_string(file).is_ok_and(|names| !names.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A node with kube-proxy and one bridge, and nobody who enforces.
    fn plain() -> Traces {
        Traces {
            devices: strings(&["lo", "eth0", "cni0", "flannel.1", "vethcafe", "kube-ipvs0"]),
            tables: strings(&["filter", "nat", "kube-proxy"]),
            chains: strings(&["FORWARD", "KUBE-FORWARD", "KUBE-SERVICES", "CNI-HOSTPORT"]),
            pins: strings(&["palisade/", "palisade/links/", "tc/", "tc/globals/"]),
            plugins: strings(&["bridge", "portmap"]),
            legacy: false,
        }
    }

    fn found(traces: &Traces) -> Vec<String> {
        let warnings = check(traces).into_iter();
        let warnings = warnings.filter(|finding| finding.severity == Severity::Warning);
        let names = warnings.map(|finding| {
            let (name, _) = finding.message.split_once(" (").unwrap_or_default();
            name.to_owned()
        });
        names.collect()
    }

    #[test]
    fn a_node_without_another_has_no_findings() {
        assert_eq!(found(&plain()), [""; 0]);
        assert_eq!(check(&plain())[0].severity, Severity::Ok);
    }

    #[test]
    fn each_is_known_by_what_it_leaves() {
        let cases: [(&str, Traces); 11] = [
            (
                "Antrea",
                Traces {
                    devices: strings(&["antrea-gw0"]),
                    ..plain()
                },
            ),
            (
                "AWS network policy agent",
                Traces {
                    pins: strings(&["globals/aws/programs/a_handle_ingress"]),
                    ..plain()
                },
            ),
            (
                "Azure NPM",
                Traces {
                    chains: strings(&["AZURE-NPM-INGRESS"]),
                    ..plain()
                },
            ),
            (
                "Calico",
                Traces {
                    devices: strings(&["cali12345678901"]),
                    ..plain()
                },
            ),
            (
                "Cilium",
                Traces {
                    pins: strings(&["tc/globals/cilium_policy_00042"]),
                    ..plain()
                },
            ),
            (
                "kindnet",
                Traces {
                    tables: strings(&["kindnet-network-policies"]),
                    ..plain()
                },
            ),
            (
                "kube-network-policies",
                Traces {
                    tables: strings(&["kube-network-policies"]),
                    ..plain()
                },
            ),
            (
                "Kube-OVN",
                Traces {
                    plugins: strings(&["kube-ovn", "portmap"]),
                    ..plain()
                },
            ),
            (
                "kube-router",
                Traces {
                    chains: strings(&["KUBE-POD-FW-ABCDEF"]),
                    ..plain()
                },
            ),
            (
                "OVN-Kubernetes",
                Traces {
                    devices: strings(&["ovn-k8s-mp0"]),
                    ..plain()
                },
            ),
            (
                "Weave Net",
                Traces {
                    chains: strings(&["WEAVE-NPC-DEFAULT"]),
                    ..plain()
                },
            ),
        ];
        assert_eq!(cases.len(), ENFORCERS.len());
        for (name, traces) in cases {
            assert_eq!(found(&traces), [name]);
        }
    }

    #[test]
    fn all_traces_of_one_are_one_finding() {
        let traces = Traces {
            devices: strings(&["cilium_host", "cilium_net"]),
            chains: strings(&["CILIUM_INPUT"]),
            ..plain()
        };
        let findings = check(&traces);
        assert_eq!(findings.len(), 1);
        let message = &findings[0].message;
        assert!(
            message.starts_with("Cilium (device cilium_host, chain CILIUM_INPUT): "),
            "{message}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let traces = Traces {
            legacy: true,
            ..plain()
        };
        assert!(check(&traces)[0].message.contains("legacy"));
    }

    #[test]
    fn the_mode_of_kube_proxy_is_seen() {
        let mut traces = plain();
        assert_eq!(traces.proxy(), Some("ipvs"));
        traces.devices.clear();
        assert_eq!(traces.proxy(), Some("nftables"));
        traces.tables.clear();
        assert_eq!(traces.proxy(), Some("iptables"));
        traces.chains.clear();
        assert_eq!(traces.proxy(), None);
    }

    #[test]
    fn pins_are_named_from_the_top() -> std::io::Result<()> {
        let folder = std::env::temp_dir().join(format!("pins-{}", std::process::id()));
        fs::create_dir_all(folder.join("globals/aws/programs"))?;
        fs::write(folder.join("globals/aws/programs/a"), "")?;
        let found = pins(&folder);
        fs::remove_dir_all(&folder)?;
        let expected = [
            "globals/",
            "globals/aws/",
            "globals/aws/programs/",
            "globals/aws/programs/a",
        ];
        assert_eq!(found, expected);
        Ok(())
    }
}
