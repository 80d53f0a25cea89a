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

/// Packages without any unsafe code.
const SAFE: &[&str] = &["palisade", "palisade-policy", "xtask"];

/// What opens unsafe code; spelt so that this file has none.
const UNSAFE_WORD: &str = "unsafe\u{20}";

/// Where there may be some.
const UNSAFE: &[&str] = &[
    "agent/dataplane/src/caps.rs",
    "agent/dataplane/src/link/",
    "agent/dataplane/tests/",
    "common/src/abi.rs",
    "ebpf/src/maps.rs",
    "ebpf/src/packet.rs",
    "ebpf/src/skb.rs",
    "ebpf/src/sockets.rs",
    "tests/kernel/src/",
    "tests/src/lab/",
    "tests/src/probe/",
    "tests/src/rig/",
];

pub(super) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let root = metadata.workspace_root.as_std_path();
    let mut problems = Vec::new();
    for path in walk(root)? {
        if is_text(&path) {
            let text = read(&path)?;
            let file = path.strip_prefix(root).unwrap_or(&path);
            problems.extend(text_problems(file, &text));
        }
    }
    for package in metadata.workspace_packages() {
        if !SAFE.contains(&package.name.as_str()) {
            continue;
        }
        let targets = package.targets.iter();
        for target in targets.filter(|target| target.is_lib() || target.is_bin()) {
            let file = target.src_path.as_std_path();
            if !read(file)?.contains("#![forbid(unsafe_code)]") {
                problems.push(format!("{}: does not forbid unsafe code", file.display()));
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
    let safe = !UNSAFE.iter().any(|place| file.starts_with(place));
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
        if rust && safe && is_unsafe(line) {
            problem("unsafe code is confined to files that tidy names");
        }
        after_test = line.starts_with("#[") && (after_test || line.contains("test]"));
    }
    let lines = text.lines().count();
    if rust && lines > LINES {
        problems.push(format!("{}: {lines} lines", file.display()));
    }
    problems
}

/// Whether a line of Rust opens unsafe code.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let mut after = code.split(UNSAFE_WORD).skip(1);
    after.any(|rest| {
        ["{", "fn ", "impl ", "extern "]
            .iter()
            .any(|what| rest.starts_with(what))
    })
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
    fn unsafe_code_is_confined() {
        let block = format!("    {UNSAFE_WORD}{{ call() }}\n");
        let block = block.as_str();
        assert_eq!(problems("agent/policy/src/lib.rs", block), 1);
        assert_eq!(problems("common/src/abi.rs", block), 0);
        assert_eq!(problems("tests/src/lab/process.rs", block), 0);
        assert_eq!(
            problems("agent/policy/src/lib.rs", "// no unsafe { here }\n"),
            0
        );
    }

    #[test]
    fn a_file_has_an_end() {
        assert_eq!(problems("a.rs", &"\n".repeat(LINES)), 0);
        assert_eq!(problems("a.rs", &"\n".repeat(LINES + 1)), 1);
    }
}
