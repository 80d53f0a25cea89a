//! Kernel modules, in an order in which they can be loaded.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    shell::{self, command},
    tidy::walk,
};

use crate::debian::Kernel;

/// What a lab is made of and the programs hang on. What a kernel has built in, or has not at
/// all, is no module of it.
const WANTED: &[&str] = &[
    "veth",
    "bridge",
    "dummy",
    "ifb",
    "tun",
    "vxlan",
    "geneve",
    "ipip",
    "wireguard",
    "8021q",
    "sch_ingress",
    "sch_clsact",
    "cls_bpf",
    "cls_matchall",
    "cls_u32",
    "act_bpf",
    "act_gact",
    "act_mirred",
    "act_skbedit",
    "br_netfilter",
    "nf_tables",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "sctp",
];

/// A module, ready to be loaded.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// The wanted modules and what they depend on, each after what it depends on.
pub(super) fn collect(kernel: &Kernel) -> Result<Vec<Module>> {
    let mut present = BTreeMap::new();
    for file in walk(&kernel.modules)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some((name, "ko" | "ko.xz")) = name.split_once('.') {
            present.insert(name.replace('-', "_"), file);
        }
    }
    let mut modules = Vec::new();
    for name in WANTED {
        add(name, &present, &mut modules)?;
    }
    Ok(modules)
}

fn add(name: &str, present: &BTreeMap<String, PathBuf>, modules: &mut Vec<Module>) -> Result<()> {
    let Some(file) = present.get(name) else {
        return Ok(());
    };
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let content = match file.extension().is_some_and(|kind| kind == "xz") {
        true => shell::bytes(command("xz --decompress --stdout").arg(file)),
        false => fs::read(file).with_context(|| format!("read {}", file.display())),
    }?;
    for dependency in dependencies(&content) {
        add(&dependency, present, modules)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

/// The `depends` of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let found = module.windows(KEY.len()).position(|window| window == KEY);
    let Some(at) = found else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stand_in_the_module() {
        let module = b"\x7fELF\0license=GPL\0depends=nf-nat,nf_tables\0name=x\0";
        assert_eq!(dependencies(module), ["nf_nat", "nf_tables"]);
        assert!(dependencies(b"\0license=GPL\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"\0license=GPL\0").is_empty());
    }

    #[test]
    fn a_module_comes_after_what_it_depends_on() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("modules-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("bridge.ko"), b"\0depends=stp,llc\0")?;
        fs::write(folder.join("stp.ko"), b"\0depends=llc\0")?;
        fs::write(folder.join("llc.ko"), b"\0depends=\0")?;
        let kernel = Kernel {
            release: "test".into(),
            image: folder.join("vmlinuz"),
            modules: folder.clone(),
        };
        let modules = collect(&kernel);
        fs::remove_dir_all(&folder)?;
        let names: Vec<_> = modules?.into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["llc", "stp", "bridge"]);
        Ok(())
    }
}
