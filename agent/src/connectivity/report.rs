//! What came of a test.

use std::{fmt::Write as _, time::Duration};

use crate::junit;

/// What came of one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// What it claims.
    pub about: String,
    /// Whether it fails where nothing enforces.
    pub needs_enforcement: bool,
    /// How many expectations it had, up to where it ended.
    pub actions: usize,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as expected.
    Passed,
    /// Something was not.
    Failed(Failure),
    /// It cannot be tried in this cluster; why.
    Skipped(String),
}

/// What was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A line for each expectation.
    pub actions: Vec<String>,
    /// Whether all of it is that somebody was answered whom policy denies.
    pub let_through: bool,
    /// What agents denied meanwhile.
    pub flows: Vec<String>,
}

/// Against what outcomes are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// Policies are enforced: every scenario passes.
    #[default]
    Enforced,
    /// Nothing enforces: exactly those fail that need it, by letting through what is denied.
    Unenforced,
}

/// How the lines begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// With signs, for a terminal.
    Signs,
    /// With words.
    Words,
}

impl Marks {
    const fn of(self, verdict: Verdict) -> &'static str {
        match (self, verdict) {
            (Self::Signs, Verdict::Right) => "✅",
            (Self::Signs, Verdict::Wrong) => "❌",
            (Self::Signs, Verdict::None) => "⏭ ",
            (Self::Words, Verdict::Right) => "pass",
            (Self::Words, Verdict::Wrong) => "FAIL",
            (Self::Words, Verdict::None) => "SKIP",
        }
    }
}

/// Whether an outcome is what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    /// There is none.
    None,
}

impl Expectation {
    fn verdict(self, ran: &Ran) -> Verdict {
        match (&ran.outcome, self) {
            (Outcome::Skipped(_), _) => Verdict::None,
            (Outcome::Passed, Self::Enforced) => Verdict::Right,
            (Outcome::Failed(_), Self::Enforced) => Verdict::Wrong,
            (Outcome::Passed, Self::Unenforced) if ran.needs_enforcement => Verdict::Wrong,
            (Outcome::Passed, Self::Unenforced) => Verdict::Right,
            (Outcome::Failed(failure), Self::Unenforced)
                if ran.needs_enforcement && failure.let_through =>
            {
                Verdict::Right
            }
            (Outcome::Failed(_), Self::Unenforced) => Verdict::Wrong,
        }
    }
}

/// A test and its end.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Against what it is held.
    pub expectation: Expectation,
    /// What ran, in the order in which it ended.
    pub ran: Vec<Ran>,
}

impl Report {
    /// Whether everything was as expected, and something was tried.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.count(Verdict::Wrong) == 0 && self.count(Verdict::Right) > 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        let right = |ran: &&Ran| self.expectation.verdict(ran) == verdict;
        self.ran.iter().filter(right).count()
    }

    /// A line that tells the end of a scenario, the `number`th of `all`.
    #[must_use]
    pub fn line(&self, ran: &Ran, (number, all): (usize, usize), marks: Marks) -> String {
        let verdict = self.expectation.verdict(ran);
        let mark = marks.of(verdict);
        let name = &ran.name;
        if let Outcome::Skipped(reason) = &ran.outcome {
            return format!("{mark} [{number}/{all}] {name}: {reason}");
        }
        let took = ran.took.as_secs_f64();
        let said = match (&ran.outcome, verdict) {
            (Outcome::Failed(_), Verdict::Right) => ", not enforced, as expected",
            _ => "",
        };
        format!("{mark} [{number}/{all}] {name} ({took:.1} s{said})")
    }

    /// What is to be said at the end.
    #[must_use]
    pub fn summary(&self, took: Duration, marks: Marks) -> String {
        let mut text = String::new();
        self.write(&mut text, took, marks)
            .expect("a String takes every text");
        text
    }

    /// The same as JUnit's XML.
    #[must_use]
    pub fn junit(&self, took: Duration) -> String {
        const NAME: &str = "connectivity";
        let case = |ran: &Ran| {
            let result = match (&ran.outcome, self.expectation.verdict(ran)) {
                (Outcome::Skipped(reason), _) => junit::Result::Skipped(reason.clone()),
                (_, Verdict::Wrong) => {
                    let lines = wrong_lines(ran);
                    let first = lines.first().cloned().unwrap_or_default();
                    junit::Result::Failure(first, lines.join("\n"))
                }
                _ => junit::Result::Passed,
            };
            junit::Case {
                class: NAME.to_owned(),
                name: ran.name.clone(),
                line: None,
                took: Some(ran.took),
                result,
            }
        };
        let suite = junit::Suite {
            name: NAME,
            cases: self.ran.iter().map(case).collect(),
            took: Some(took),
        };
        suite.to_string()
    }

    fn write(&self, text: &mut String, took: Duration, marks: Marks) -> std::fmt::Result {
        let [right, wrong, skipped] =
            [Verdict::Right, Verdict::Wrong, Verdict::None].map(|verdict| self.count(verdict));
        let actions: usize = self.ran.iter().map(|ran| ran.actions).sum();
        let took = took.as_secs();
        if wrong > 0 {
            writeln!(text, "\nTest Report")?;
            writeln!(
                text,
                "{} {wrong}/{} tests failed, {skipped} tests skipped, {actions} actions, in {took} s:",
                marks.of(Verdict::Wrong),
                right + wrong
            )?;
        }
        for ran in &self.ran {
            if self.expectation.verdict(ran) == Verdict::Wrong {
                write_wrong(text, ran)?;
            }
        }
        if wrong > 0 {
            return Ok(());
        }
        let mark = marks.of(if right > 0 {
            Verdict::Right
        } else {
            Verdict::Wrong
        });
        match self.expectation {
            _ if right == 0 => writeln!(text, "{mark} No test was run, {skipped} tests skipped."),
            Expectation::Enforced => writeln!(
                text,
                "{mark} All {right} tests ({actions} actions) successful, {skipped} tests skipped, in {took} s."
            ),
            Expectation::Unenforced => {
                let need = self
                    .ran
                    .iter()
                    .filter(|ran| matches!(ran.outcome, Outcome::Failed(_)));
                let need = need.count();
                writeln!(
                    text,
                    "{mark} Nothing is enforced: exactly the {need} tests failed that need it, {} others successful \
                     ({actions} actions), {skipped} tests skipped, in {took} s.",
                    right - need
                )
            }
        }
    }
}

fn write_wrong(text: &mut String, ran: &Ran) -> std::fmt::Result {
    writeln!(text, "Test [{}]: {}", ran.name, ran.about)?;
    for line in wrong_lines(ran) {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

/// What is to be said of a scenario that did not end as expected.
fn wrong_lines(ran: &Ran) -> Vec<String> {
    let Outcome::Failed(failure) = &ran.outcome else {
        return vec!["passed, though it needs enforcement: something enforces".to_owned()];
    };
    let mut lines = failure.actions.clone();
    if !failure.flows.is_empty() {
        lines.push("denied meanwhile:".to_owned());
        lines.extend(failure.flows.iter().map(|flow| format!("  {flow}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(name: &str, needs_enforcement: bool, outcome: Outcome) -> Ran {
        Ran {
            name: name.to_owned(),
            about: "A claim".to_owned(),
            needs_enforcement,
            actions: 3,
            took: Duration::from_millis(1500),
            outcome,
        }
    }

    fn failed(let_through: bool) -> Outcome {
        Outcome::Failed(Failure {
            actions: vec![
                "under its policies: x/a -> x/b:8080: is denied, but answered".to_owned(),
            ],
            let_through,
            flows: vec!["node1: DENIED".to_owned()],
        })
    }

    fn report(expectation: Expectation, ran: Vec<Ran>) -> Report {
        Report { expectation, ran }
    }

    #[test]
    fn where_policies_are_enforced_every_scenario_has_to_pass() {
        let good = vec![
            ran("a", true, Outcome::Passed),
            ran("b", false, Outcome::Passed),
        ];
        let skipped = ran("c", true, Outcome::Skipped("no SCTP".to_owned()));
        let mut report = report(Expectation::Enforced, good);
        report.ran.push(skipped);
        assert!(report.is_good());
        let text = report.summary(Duration::from_secs(9), Marks::Words);
        assert_eq!(
            text,
            "pass All 2 tests (9 actions) successful, 1 tests skipped, in 9 s.\n"
        );
        report.ran.push(ran("d", true, failed(true)));
        assert!(!report.is_good());
        let text = report.summary(Duration::from_secs(9), Marks::Signs);
        assert!(
            text.contains("❌ 1/3 tests failed, 1 tests skipped"),
            "{text}"
        );
        assert!(
            text.contains("Test [d]: A claim\n  under its policies: x/a"),
            "{text}"
        );
        assert!(
            text.contains("  denied meanwhile:\n    node1: DENIED\n"),
            "{text}"
        );
    }

    #[test]
    fn where_nothing_enforces_exactly_those_fail_that_need_it() {
        let good = || {
            vec![
                ran("a", true, failed(true)),
                ran("b", false, Outcome::Passed),
            ]
        };
        let unenforced = |more: Vec<Ran>| {
            let ran = good().into_iter().chain(more).collect();
            report(Expectation::Unenforced, ran)
        };
        assert!(unenforced(Vec::new()).is_good());
        let text = unenforced(Vec::new()).summary(Duration::ZERO, Marks::Words);
        assert!(
            text.contains("exactly the 1 tests failed that need it, 1 others"),
            "{text}"
        );
        // What passes shows that something enforces; other failures show nothing of enforcement.
        for wrong in [
            ran("c", true, Outcome::Passed),
            ran("c", true, failed(false)),
            ran("c", false, failed(true)),
        ] {
            assert!(!unenforced(vec![wrong.clone()]).is_good(), "{wrong:?}");
        }
        let enforced = unenforced(vec![ran("c", true, Outcome::Passed)]);
        let text = enforced.summary(Duration::ZERO, Marks::Words);
        assert!(text.contains("something enforces"), "{text}");
    }

    #[test]
    fn a_test_in_which_nothing_was_tried_is_not_good() {
        let skipped = vec![ran("a", true, Outcome::Skipped("no".to_owned()))];
        let report = report(Expectation::Enforced, skipped);
        assert!(!report.is_good());
        let text = report.summary(Duration::ZERO, Marks::Words);
        assert_eq!(text, "FAIL No test was run, 1 tests skipped.\n");
    }

    #[test]
    fn in_junit_what_fails_as_expected_passes() {
        let all = vec![
            ran("a", true, failed(true)),
            ran("b", true, Outcome::Passed),
            ran("c", true, Outcome::Skipped("no SCTP".to_owned())),
        ];
        let text = report(Expectation::Unenforced, all).junit(Duration::from_secs(2));
        for part in [
            "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"2.000\"",
            "name=\"a\" time=\"1.500\"/>",
            "name=\"b\" time=\"1.500\"><failure message=\"passed, though",
            "name=\"c\" time=\"1.500\"><skipped message=\"no SCTP\"/>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_end_of_a_scenario_is_a_line() {
        let report = report(Expectation::Unenforced, Vec::new());
        let line = |ran: &Ran, marks| report.line(ran, (2, 9), marks);
        let passed = ran("a", false, Outcome::Passed);
        assert_eq!(line(&passed, Marks::Words), "pass [2/9] a (1.5 s)");
        let expected = ran("b", true, failed(true));
        assert_eq!(
            line(&expected, Marks::Signs),
            "✅ [2/9] b (1.5 s, not enforced, as expected)"
        );
        let skipped = ran("c", true, Outcome::Skipped("no SCTP".to_owned()));
        assert_eq!(line(&skipped, Marks::Words), "SKIP [2/9] c: no SCTP");
    }
}
