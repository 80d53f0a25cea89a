//! Who may depend on whom, and how manifests say it.

use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, Package};

/// Of this workspace.
const OWN: &[&str] = &["palisade", "xtask"];
const CLUSTER: &[&str] = &["kube", "k8s-openapi"];
const RUNTIME: &[&str] = &["tokio"];
const KERNEL: &[&str] = &["aya", "netlink"];
const FORMAT: &[&str] = &["serde"];
const LOG: &[&str] = &["tracing", "log"];

/// What the programs in the kernel may use: nothing else is built for their target. Beside them for the host: a kernel in memory.
const IN_KERNEL: &[&str] = &[
    "palisade-common",
    "palisade-kernel",
    "aya-ebpf",
    "network-types",
    "zerocopy",
];

/// The edges of one package. A name stands for its family too: `kube` for `kube-client`.
struct Rule {
    package: &'static str,
    never: &'static [&'static [&'static str]],
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        package: "palisade-common",
        never: &[OWN, CLUSTER, RUNTIME, KERNEL, FORMAT, LOG],
        // For `aya::Pod` alone, under the feature `user`.
        except: &["aya"],
    },
    Rule {
        package: "palisade-policy",
        never: &[OWN, CLUSTER, RUNTIME, KERNEL, FORMAT, LOG],
        except: &[],
    },
    Rule {
        package: "palisade-dataplane",
        never: &[OWN, CLUSTER, RUNTIME, FORMAT],
        except: &["palisade-common", "palisade-policy"],
    },
    Rule {
        package: "palisade",
        never: &[OWN, &["aya"]],
        except: &["palisade-common", "palisade-dataplane", "palisade-policy"],
    },
    Rule {
        package: "palisade-tests",
        never: &[&["palisade-ebpf", "xtask"]],
        except: &[],
    },
    Rule {
        package: "palisade-fuzz",
        never: &[&["xtask"]],
        except: &[],
    },
    Rule {
        package: "palisade-kernel",
        never: &[OWN, CLUSTER, RUNTIME, KERNEL, FORMAT, LOG],
        // As the programs know it.
        except: &["aya-ebpf-bindings", "aya-ebpf-macros"],
    },
    Rule {
        package: "xtask",
        never: &[OWN, CLUSTER, RUNTIME, KERNEL],
        except: &[],
    },
];

pub(super) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        for dependency in uses(package) {
            if !allowed(name, dependency) {
                problems.push(format!("{name} may not depend on {dependency}"));
            }
        }
        if name != "palisade-ebpf" && !RULES.iter().any(|rule| rule.package == name) {
            problems.push(format!("{name} has no rule of what it may depend on"));
        }
        let path = package.manifest_path.as_std_path();
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        problems.extend(manifest(name, &text));
    }
    Ok(problems)
}

/// What tests need besides is no matter of layers.
fn uses(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}

fn allowed(package: &str, dependency: &str) -> bool {
    if package == "palisade-ebpf" {
        return IN_KERNEL.contains(&dependency);
    }
    let of_family = |family: &str| {
        let rest = dependency.strip_prefix(family);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    RULES
        .iter()
        .filter(|rule| rule.package == package)
        .all(|rule| {
            rule.except.contains(&dependency)
                || !rule
                    .never
                    .iter()
                    .copied()
                    .flatten()
                    .any(|family| of_family(family))
        })
}

/// Lints and versions are the workspace's.
fn manifest(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut section = "";
    let mut lints = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        lints |= section == "[lints]" && line == "workspace = true";
        let names_dependency =
            section.ends_with("dependencies]") && line.contains('=') && !line.starts_with('#');
        if names_dependency && !line.replace(' ', "").contains("workspace=true") {
            problems.push(format!("{name}: not from the workspace: {line}"));
        }
    }
    if !lints {
        problems.push(format!("{name}: lints are not the workspace's"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_pure() {
        for impure in [
            "kube",
            "kube-client",
            "tokio",
            "aya",
            "aya-obj",
            "serde_json",
        ] {
            assert!(!allowed("palisade-policy", impure), "{impure}");
        }
        assert!(!allowed("palisade-policy", "palisade-dataplane"));
        assert!(allowed("palisade-policy", "ipnet"));
    }

    #[test]
    fn no_layer_knows_one_above_it() {
        assert!(!allowed("palisade-dataplane", "palisade"));
        assert!(!allowed("palisade-common", "palisade-policy"));
        assert!(!allowed("palisade", "aya"));
        assert!(!allowed("palisade-ebpf", "anyhow"));
        assert!(allowed("palisade", "palisade-dataplane"));
        assert!(allowed("palisade-common", "aya"));
    }

    #[test]
    fn a_manifest_takes_versions_and_lints_from_the_workspace() {
        let good = "[dependencies]\nanyhow.workspace = true\n[lints]\nworkspace = true\n";
        assert_eq!(manifest("x", good), Vec::<String>::new());
        let own = "[dev-dependencies]\nanyhow = \"1\"\n[lints]\nworkspace = true\n";
        assert_eq!(manifest("x", own).len(), 1);
        assert_eq!(manifest("x", "[package]\nname = \"x\"\n").len(), 1);
    }
}
