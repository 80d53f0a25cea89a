//! No source file outside a module tree: the compiler does not see it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cargo_metadata::Metadata;

use super::sources::walk;

pub(super) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut present = BTreeSet::new();
    for package in metadata.workspace_packages() {
        for target in &package.targets {
            follow(target.src_path.as_std_path(), true, &mut reached)?;
        }
        let folder = package.manifest_path.as_std_path().parent();
        let folder = folder.context("a manifest is in no folder")?;
        let files = walk(folder)?.into_iter();
        present.extend(files.filter(|file| file.extension().is_some_and(|kind| kind == "rs")));
    }
    let orphans = present.difference(&reached);
    Ok(orphans
        .map(|file| format!("{}: in no module tree", file.display()))
        .collect())
}

/// Notes a file and the files of the modules that it declares.
fn follow(file: &Path, root: bool, reached: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !reached.insert(file.to_owned()) {
        return Ok(());
    }
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let beside = file.parent().unwrap_or(Path::new(""));
    let below = match root {
        true => beside.to_owned(),
        false => file.with_extension(""),
    };
    for module in modules(&text) {
        let place = match module {
            Module::Named(name) => below.join(name).with_extension("rs"),
            Module::At(path) => normal(&beside.join(path)),
        };
        // Of a module inside an inline one the place is not known here.
        if place.exists() {
            follow(&place, false, reached)?;
        }
    }
    Ok(())
}

/// Without `..`, which a path attribute may have.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[derive(Debug, PartialEq)]
enum Module<'a> {
    Named(&'a str),
    At(&'a str),
}

/// The modules that a text declares in files of their own.
fn modules(text: &str) -> Vec<Module<'_>> {
    let mut modules = Vec::new();
    let mut at = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"") {
            at = path.strip_suffix("\"]");
            continue;
        }
        let declared = match line.strip_prefix("pub") {
            Some(rest) => rest.find("mod ").map(|start| &rest[start..]),
            None => Some(line),
        };
        let name = declared
            .and_then(|text| text.strip_prefix("mod "))
            .and_then(|text| text.strip_suffix(';'));
        if let Some(name) = name {
            modules.push(at.take().map_or(Module::Named(name), Module::At));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_declaration_is_seen() {
        let text = "mod a;\npub mod b;\npub(crate) mod c;\n#[cfg(test)]\nmod tests;\n\
                    #[path = \"../d.rs\"]\nmod d;\nmod inline {\n}\n// mod e;\n";
        let expected = [
            Module::Named("a"),
            Module::Named("b"),
            Module::Named("c"),
            Module::Named("tests"),
            Module::At("../d.rs"),
        ];
        assert_eq!(modules(text), expected);
    }

    #[test]
    fn a_file_that_no_module_names_is_found() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("tidy-{}", std::process::id()));
        fs::create_dir_all(folder.join("a"))?;
        fs::write(folder.join("lib.rs"), "mod a;\n")?;
        fs::write(folder.join("a.rs"), "mod b;\n")?;
        fs::write(folder.join("a/b.rs"), "")?;
        fs::write(folder.join("a/orphan.rs"), "")?;
        let mut reached = BTreeSet::new();
        follow(&folder.join("lib.rs"), true, &mut reached)?;
        let present: BTreeSet<_> = walk(&folder)?.into_iter().collect();
        let orphans: Vec<_> = present.difference(&reached).cloned().collect();
        fs::remove_dir_all(&folder)?;
        assert_eq!(orphans, [folder.join("a/orphan.rs")]);
        Ok(())
    }
}
