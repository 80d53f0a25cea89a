//! What came of a run: its steps, its tests, what was skipped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// So many of the last lines of a step beside the others are told; the file has all.
const FAILED: usize = 200;
const PASSED: usize = 12;

/// What the tests' output says.
#[derive(Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    pub(super) skips: Vec<String>,
}

impl Tally {
    pub(super) fn see(&mut self, line: &str) {
        if let Some(reason) = line.strip_prefix("SKIP: ") {
            self.skips.push(reason.to_owned());
        }
        let Some(result) = counts(line) else {
            return;
        };
        let counts = result.split([';', '.']).filter_map(|part| {
            let (count, what) = part.trim().split_once(' ')?;
            Some((count.parse::<u64>().ok()?, what))
        });
        for (count, what) in counts {
            let sum: Option<&mut u64> = match what {
                "passed" => Some(&mut self.passed),
                "failed" => Some(&mut self.failed),
                "ignored" => Some(&mut self.ignored),
                _ => None,
            };
            if let Some(sum) = sum {
                *sum += count;
            }
        }
    }
}

/// How many tests passed, failed and the like, in the line with which a program of tests ends.
pub(super) fn counts(line: &str) -> Option<&str> {
    line.strip_prefix("test result: ")
}

/// The steps of a run: a failed one does not keep the rest from being tried.
#[derive(Default)]
pub(super) struct Report {
    tally: Tally,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

impl Step {
    fn run(name: &'static str, step: impl FnOnce() -> Result<()>) -> Self {
        let start = Instant::now();
        let error = step().err().map(|error| format!("{error:#}"));
        let took = start.elapsed();
        Self { name, took, error }
    }
}

impl Report {
    pub(super) fn step(&mut self, name: &'static str, step: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("\n== {name}");
        let step = Step::run(name, || step(&mut self.tally));
        self.end(step);
    }

    /// Waits for the steps that were begun beside the others.
    pub(super) fn join(&mut self, beside: Beside) {
        let ended = beside.0.join();
        for (step, log) in ended.unwrap_or_else(|cause| panic::resume_unwind(cause)) {
            println!("\n== {}, beside the others", step.name);
            let said = fs::read(log).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<_> = said.lines().collect();
            lines.iter().for_each(|line| self.tally.see(line));
            let told = if step.error.is_some() { FAILED } else { PASSED };
            for line in &lines[lines.len().saturating_sub(told)..] {
                println!("{line}");
            }
            self.end(step);
        }
    }

    fn end(&mut self, step: Step) {
        if let Some(error) = &step.error {
            println!("FAILED: {error}");
        }
        self.steps.push(step);
    }

    pub(super) fn finish(self) -> Result<()> {
        println!("\n== summary\n{}", self.summary());
        let steps = self.steps.iter();
        let failed = steps.filter(|step| step.error.is_some());
        let failed: Vec<_> = failed.map(|step| step.name).collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for Step { name, took, error } in &self.steps {
            let verdict = error.as_deref().unwrap_or("ok");
            text += &format!("{name:<16} {:>5} s  {verdict}\n", took.as_secs());
        }
        let Tally {
            passed,
            failed,
            ignored,
            skips,
        } = &self.tally;
        text += &format!("tests: {passed} passed, {failed} failed, {ignored} ignored\n");
        text += &format!("skipped: {}", skips.len());
        for (reason, times) in counted(skips) {
            text += &format!("\n  SKIP: {reason} ({times})");
        }
        text
    }
}

fn counted(words: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts
}

/// Steps that are processes of their own, beside those of the run; what they say is read at the end.
pub(super) struct Beside(JoinHandle<Vec<(Step, PathBuf)>>);

/// Steps that run at the same time: the name of each, and the arguments of this program.
pub(super) type Group = &'static [(&'static str, &'static str)];

impl Beside {
    /// Starts this very program with the arguments of each step, group after group, whatever became of those before.
    pub(super) fn start(groups: &'static [Group]) -> Result<Self> {
        let folder = workspace::target_folder()?;
        let run = move |name: &'static str, arguments: &str| {
            let log = folder.join(format!("{}.log", name.replace(' ', "-")));
            (Step::run(name, || again(arguments, &log)), log)
        };
        let run_all = move |group: &Group| {
            thread::scope(|scope| {
                let run = &run;
                let begin = |(name, arguments)| scope.spawn(move || run(name, arguments));
                let steps: Vec<_> = group.iter().copied().map(begin).collect();
                let ended = steps.into_iter().map(|step| step.join());
                let ended = ended.map(|it| it.unwrap_or_else(|cause| panic::resume_unwind(cause)));
                ended.collect::<Vec<_>>()
            })
        };
        let begun = thread::spawn(move || groups.iter().flat_map(run_all).collect());
        Ok(Self(begun))
    }
}

/// Runs this program with other arguments.
fn again(arguments: &str, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("write {}", log.display()))?;
    // Not by its name: the file may have been built anew since.
    let status = Command::new("/proc/self/exe")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("start this program again")?;
    ensure!(status.success(), "{status}, see {}", log.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut tally = Tally::default();
        tally.see("running 3 tests");
        tally.see("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.see("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.52s");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 2, 1));
    }

    #[test]
    fn the_same_reason_to_skip_is_told_once() {
        let mut tally = Tally::default();
        for line in ["SKIP: needs root", "SKIP: no IPv6", "SKIP: needs root"] {
            tally.see(line);
        }
        let report = Report {
            tally,
            ..Report::default()
        };
        let expected = "tests: 0 passed, 0 failed, 0 ignored\n\
                        skipped: 3\n  SKIP: needs root (2)\n  SKIP: no IPv6 (1)";
        assert_eq!(report.summary(), expected);
    }

    #[test]
    fn a_failed_step_fails_the_run_and_lets_the_others_go_on() {
        let mut report = Report::default();
        let mut ran = false;
        report.step("first", |_| anyhow::bail!("no"));
        report.step("second", |_| {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert!(report.finish().is_err());
    }

    #[test]
    fn steps_beside_others_are_told_in_order_and_a_failed_one_fails_the_run() -> Result<()> {
        // This very program is that of these tests.
        let beside = Beside::start(&[
            &[("refused", "--no-such-option")],
            &[("listed", "--list"), ("again", "--list")],
        ])?;
        let mut report = Report::default();
        report.step("other", |_| Ok(()));
        report.join(beside);
        let steps = report.steps.iter();
        let ended: Vec<_> = steps
            .map(|step| (step.name, step.error.is_none()))
            .collect();
        assert_eq!(
            ended,
            [
                ("other", true),
                ("refused", false),
                ("listed", true),
                ("again", true)
            ]
        );
        assert!(report.finish().is_err());
        Ok(())
    }
}
