//! The network plugins of the runtime, as their folder says.

use std::{fs, path::Path};

use serde_json::Value;

use super::{Finding, Severity};
use crate::cni::folders::lists;

/// Plugins that leave no device of a pod on the node, where a program could be.
const WITHOUT_DEVICE: [&str; 5] = ["macvlan", "ipvlan", "host-device", "sriov", "vlan"];

/// What the runtime uses: the first file of the folder, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plugins {
    /// There is no file, or none that can be read.
    None(String),
    /// A list.
    List {
        file: String,
        name: String,
        types: Vec<String>,
    },
    /// One plugin by itself, in the older form.
    Single { file: String, kind: String },
}

impl Plugins {
    pub(super) fn types(&self) -> impl Iterator<Item = &str> {
        let types = match self {
            Self::None(_) => &[],
            Self::List { types, .. } => types.as_slice(),
            Self::Single { kind, .. } => std::slice::from_ref(kind),
        };
        types.iter().map(String::as_str)
    }
}

pub(super) fn read(folder: &Path) -> Plugins {
    let files = match lists(folder) {
        Ok(files) => files,
        Err(error) => return Plugins::None(format!("{error:#}")),
    };
    let Some(file) = files.first() else {
        return Plugins::None("there is no file".to_owned());
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match fs::read_to_string(file) {
        Ok(text) => parse(&name, &text),
        Err(error) => Plugins::None(format!("{name}: {error}")),
    }
}

fn parse(file: &str, text: &str) -> Plugins {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Plugins::None(format!("{file}: {error}")),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let file = file.to_owned();
    match value["plugins"].as_array() {
        Some(plugins) => Plugins::List {
            file,
            name: text(&value["name"]),
            types: plugins.iter().map(|plugin| text(&plugin["type"])).collect(),
        },
        None => Plugins::Single {
            file,
            kind: text(&value["type"]),
        },
    }
}

pub(super) fn check(folder: &Path, plugins: &Plugins) -> Finding {
    let finding = |severity, message: String| Finding::new("cni", severity, message);
    let mut warnings = Vec::new();
    let found = match plugins {
        Plugins::None(why) => {
            let message = format!("no network plugin in {}: {why}", folder.display());
            return finding(Severity::Warning, message);
        }
        Plugins::List { file, name, types } => format!("{name} ({}) of {file}", types.join(", ")),
        Plugins::Single { file, kind } => {
            warnings.push("no plugin can be added to it, for it is no list".to_owned());
            format!("{kind} of {file}")
        }
    };
    let without = plugins
        .types()
        .filter(|kind| WITHOUT_DEVICE.contains(kind))
        .map(|kind| format!("pods of {kind} are not enforced: they have no device on the node"));
    warnings.extend(without);
    match warnings.is_empty() {
        true => finding(Severity::Ok, found),
        false => finding(
            Severity::Warning,
            format!("{found}: {}", warnings.join("; ")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDNET: &str = r#"{"cniVersion":"0.3.1","name":"kindnet","plugins":[
        {"type":"ptp","ipMasq":false,"ipam":{"type":"host-local"},"mtu":1500},
        {"type":"portmap","capabilities":{"portMappings":true}}]}"#;
    const MACVLAN: &str = r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"macvlan"}]}"#;
    const SINGLE: &str = r#"{"cniVersion":"0.3.1","name":"a","type":"bridge"}"#;

    fn found(file: &str, text: &str) -> Finding {
        check(Path::new("/cni"), &parse(file, text))
    }

    #[test]
    fn a_list_of_plugins_with_devices_is_fine() {
        let found = found("10-kindnet.conflist", KINDNET);
        assert_eq!(found.severity, Severity::Ok);
        assert_eq!(
            found.message,
            "kindnet (ptp, portmap) of 10-kindnet.conflist"
        );
    }

    #[test]
    fn what_cannot_be_enforced_or_added_to_is_a_warning() {
        for (text, word) in [
            (MACVLAN, "macvlan are not enforced"),
            (SINGLE, "no list"),
            ("{", "no network plugin in /cni: a.conf"),
        ] {
            let found = found("a.conf", text);
            assert_eq!(found.severity, Severity::Warning);
            assert!(found.message.contains(word), "{}", found.message);
        }
    }

    #[test]
    fn the_first_file_by_name_counts() -> std::io::Result<()> {
        let folder = std::env::temp_dir().join(format!("cni-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let empty = read(&folder);
        for (name, text) in [
            ("20-b.conf", SINGLE),
            ("10-a.conflist", KINDNET),
            ("00-a.bak", ""),
        ] {
            fs::write(folder.join(name), text)?;
        }
        let first = read(&folder);
        fs::remove_dir_all(&folder)?;
        assert_eq!(empty, Plugins::None("there is no file".to_owned()));
        assert_eq!(first.types().collect::<Vec<_>>(), ["ptp", "portmap"]);
        assert!(matches!(read(&folder), Plugins::None(_)));
        Ok(())
    }
}
