//! What a guest wrote to its console.

use std::collections::BTreeMap;

/// How a guest ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// All held; the words that tell how many.
    Pass(String),
    /// Something did not hold.
    Fail(String),
    /// The kernel died, or the program under it did without a verdict.
    Crash(String),
}

/// The parts of a console that matter.
pub(super) struct Console {
    pub(super) end: End,
    /// Verified instructions, by program.
    pub(super) instructions: BTreeMap<String, u64>,
    pub(super) skips: Vec<String>,
}

impl Console {
    pub(super) fn read(text: &str) -> Self {
        let mut instructions = BTreeMap::new();
        let mut skips = Vec::new();
        let mut verdict = None;
        let mut crash = None;
        for line in text.lines().map(str::trim) {
            if let Some(counted) = line.strip_prefix("INSNS ") {
                instructions.extend(instruction(counted));
            } else if let Some(reason) = line.strip_prefix("SKIP: ") {
                skips.push(reason.to_owned());
            } else if let Some(said) = line.strip_prefix("KERNEL-CHECK: ") {
                // The first failure, or the last word.
                if !matches!(verdict, Some(End::Fail(_))) {
                    verdict = Some(ended(said));
                }
            } else if crash.is_none() && is_crash(line) {
                crash = Some(End::Crash(line.to_owned()));
            }
        }
        let silent = || End::Crash("it ended without a verdict".into());
        Self {
            end: crash.or(verdict).unwrap_or_else(silent),
            instructions,
            skips,
        }
    }
}

/// The end of a console, for a reader.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(60);
    lines[from..].join("\n")
}

fn ended(said: &str) -> End {
    match said.split_once(' ').unwrap_or((said, "")) {
        ("PASS", rest) => End::Pass(rest.to_owned()),
        ("FAIL", rest) => End::Fail(rest.to_owned()),
        _ => End::Fail(said.to_owned()),
    }
}

fn instruction(counted: &str) -> Option<(String, u64)> {
    let (program, count) = counted.split_once(' ')?;
    Some((program.to_owned(), count.parse().ok()?))
}

/// Lines of a kernel that dies.
fn is_crash(line: &str) -> bool {
    let signs = [
        "Kernel panic - not syncing",
        "Oops: ",
        "BUG: ",
        "kernel BUG at",
        "general protection fault",
    ];
    signs.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_what_the_program_says() {
        let pass = Console::read("hello\r\nINSNS from_pod 41\r\nKERNEL-CHECK: PASS 9 checks\r\n");
        assert_eq!(pass.end, End::Pass("9 checks".into()));
        assert_eq!(pass.instructions["from_pod"], 41);
        let fail = Console::read("KERNEL-CHECK: FAIL to_pod: refused\n");
        assert_eq!(fail.end, End::Fail("to_pod: refused".into()));
    }

    #[test]
    fn no_later_word_undoes_a_failure() {
        let both = Console::read("KERNEL-CHECK: FAIL no\nKERNEL-CHECK: PASS 9 checks\n");
        assert_eq!(both.end, End::Fail("no".into()));
    }

    #[test]
    fn a_dead_kernel_is_no_pass() {
        let text = "KERNEL-CHECK: PASS 9 checks\n[    3.1] Oops: 0002 [#1] SMP\n";
        let Console { end, .. } = Console::read(text);
        assert_eq!(end, End::Crash("[    3.1] Oops: 0002 [#1] SMP".into()));
    }

    #[test]
    fn silence_is_a_crash() {
        let end = Console::read("hello\n").end;
        assert_eq!(end, End::Crash("it ended without a verdict".into()));
    }
}
