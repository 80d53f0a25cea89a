//! What a source file may not contain, and how long it may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cargo_metadata::Metadata;

/// A file past 400 lines asks what its second noun is; past this there is no question.
const LINES: usize = 800;

/// Paths of somebody's machine, and words that stand for work that was not done. Cut in two, so
/// that this file may contain them.
const WORDS: &[(&str, &str)] = &[
    ("/home", "/"),
    ("/root", "/"),
    ("/tmp", "/wt"),
    ("/wo", "rk/"),
    ("TO", "DO"),
    ("FIX", "ME"),
    ("to", "do!("),
    ("unimpl", "emented!("),
];

/// How the crate roots of a package treat unsafe code.
const UNSAFE: &[(&str, &str)] = &[
    ("palisade", "forbid"),
    ("palisade-policy", "forbid"),
    ("xtask", "forbid"),
    ("palisade-common", "deny"),
    ("palisade-dataplane", "deny"),
    ("palisade-ebpf", "deny"),
];

pub(super) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in walk(metadata.workspace_root.as_std_path())? {
        if is_text(&file) {
            let text = read(&file)?;
            problems.extend(text_problems(&file, &text));
        }
    }
    for package in metadata.workspace_packages() {
        let level = UNSAFE.iter().find(|(name, _)| package.name == *name);
        let roots = package.targets.iter();
        for target in roots.filter(|target| target.is_lib() || target.is_bin()) {
            let Some((_, level)) = level else { continue };
            let attribute = format!("#![{level}(unsafe_code)]");
            let file = target.src_path.as_std_path();
            if !read(file)?.contains(&attribute) {
                problems.push(format!("{}: without {attribute}", file.display()));
            }
        }
    }
    Ok(problems)
}

/// The files below a folder; neither hidden ones, except the project's own, nor what was built.
pub(crate) fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.') && ![".ci", ".cargo"].contains(&name.as_ref());
        if hidden || name == "target" {
            continue;
        }
        match path.is_dir() {
            true => files.extend(walk(&path)?),
            false => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

fn is_text(file: &Path) -> bool {
    let kinds = ["rs", "md", "toml", "yaml", "yml", "sh"];
    let kind = file.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| kinds.contains(&kind)) || file.ends_with(".ci/run")
}

fn text_problems(file: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let rust = file.extension().is_some_and(|kind| kind == "rs");
    let mut after_test = false;
    for (number, line) in text.lines().enumerate() {
        let mut problem = |what: &str| {
            problems.push(format!("{}:{}: {what}", file.display(), number + 1));
        };
        for (start, end) in WORDS {
            if line.contains(&format!("{start}{end}")) {
                problem(&format!("contains {start}{end}"));
            }
        }
        let line = line.trim();
        if after_test && line.starts_with("fn test_") {
            problem("the name of a test is a claim");
        }
        after_test = line.starts_with("#[") && (after_test || line.contains("test]"));
    }
    let lines = text.lines().count();
    if rust && lines > LINES {
        problems.push(format!("{}: {lines} lines", file.display()));
    }
    problems
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, text: &str) -> usize {
        text_problems(Path::new(name), text).len()
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let path = ["see /ho", "me/someone/notes\n"].concat();
        assert_eq!(problems("a.md", &path), 1);
        assert_eq!(problems("a.md", "see docs/notes\n"), 0);
    }

    #[test]
    fn names_of_tests_are_claims() {
        assert_eq!(problems("a.rs", "#[test]\nfn test_it() {}\n"), 1);
        assert_eq!(problems("a.rs", "#[test]\nfn it_holds() {}\n"), 0);
        assert_eq!(problems("a.rs", "fn test_run() {}\n"), 0);
    }

    #[test]
    fn a_file_has_an_end() {
        assert_eq!(problems("a.rs", &"\n".repeat(LINES)), 0);
        assert_eq!(problems("a.rs", &"\n".repeat(LINES + 1)), 1);
    }
}
