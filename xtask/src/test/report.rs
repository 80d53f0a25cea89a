//! What came of a run: its steps, its tests, what was skipped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

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
        let Some(result) = line.strip_prefix("test result: ") else {
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

impl Report {
    pub(super) fn step(&mut self, name: &'static str, step: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step(&mut self.tally);
        self.end(name, start, result);
    }

    /// Waits for a step that was begun beside others.
    pub(super) fn join(&mut self, beside: Result<Beside>) {
        println!("\n== end of the steps beside");
        let (name, start, result) = match beside {
            Ok(beside) => (beside.name, beside.start, beside.wait(&mut self.tally)),
            Err(error) => ("beside", Instant::now(), Err(error)),
        };
        self.end(name, start, result);
    }

    fn end(&mut self, name: &'static str, start: Instant, result: Result<()>) {
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            println!("FAILED: {error}");
        }
        self.steps.push(Step {
            name,
            took: start.elapsed(),
            error,
        });
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

/// A step that is a process of its own, because it waits for most of its time; what it says is read at its end.
pub(super) struct Beside {
    name: &'static str,
    start: Instant,
    process: Child,
    log: PathBuf,
}

impl Beside {
    /// Starts this very program with other arguments.
    pub(super) fn start(name: &'static str, arguments: &[&str]) -> Result<Self> {
        println!("\n== {name}, beside what follows");
        let log = workspace::target_folder()?.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        // The file may have been built anew since.
        let process = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        Ok(Self {
            name,
            start: Instant::now(),
            process: process.context("start this program again")?,
            log,
        })
    }

    fn wait(mut self, tally: &mut Tally) -> Result<()> {
        let status = self.process.wait()?;
        let said = fs::read(&self.log)?;
        for line in String::from_utf8_lossy(&said).lines() {
            println!("{line}");
            tally.see(line);
        }
        ensure!(status.success(), "{status}, see {}", self.log.display());
        Ok(())
    }
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
}
