//! What came of a test, as the tools of CI read it: JUnit's XML.

use std::{fmt::Write as _, time::Duration};

use super::{Outcome, Report, Verdict, wrong_lines};

impl Report {
    /// The XML.
    #[must_use]
    pub fn junit(&self, took: Duration) -> String {
        let mut text = String::new();
        self.write_junit(&mut text, took)
            .expect("a String takes every text");
        text
    }

    fn write_junit(&self, text: &mut String, took: Duration) -> std::fmt::Result {
        writeln!(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
            self.ran.len(),
            self.count(Verdict::Wrong),
            self.count(Verdict::None),
            took.as_secs_f64()
        );
        writeln!(text, "<testsuites {counts}>")?;
        writeln!(text, "  <testsuite name=\"connectivity\" {counts}>")?;
        for ran in &self.ran {
            write!(
                text,
                "    <testcase name=\"{}\" classname=\"connectivity\" time=\"{:.3}\"",
                escaped(&ran.name),
                ran.took.as_secs_f64()
            )?;
            let verdict = self.expectation.verdict(ran);
            match (&ran.outcome, verdict) {
                (Outcome::Skipped(reason), _) => {
                    let reason = escaped(reason);
                    writeln!(text, "><skipped message=\"{reason}\"/></testcase>")?;
                }
                (_, Verdict::Wrong) => {
                    let lines = wrong_lines(ran);
                    let message = lines.first().map(String::as_str).unwrap_or_default();
                    writeln!(
                        text,
                        "><failure message=\"{}\">{}</failure></testcase>",
                        escaped(message),
                        escaped(&lines.join("\n"))
                    )?;
                }
                _ => writeln!(text, "/>")?,
            }
        }
        writeln!(text, "  </testsuite>\n</testsuites>")
    }
}

/// Text as XML has it; what XML cannot have is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::report::{
        Expectation, Failure,
        tests::{failed, ran, report},
    };

    #[test]
    fn junit_has_a_case_for_each_scenario_and_text_that_xml_takes() {
        let mut strange = ran("b", true, failed(true));
        strange.outcome = Outcome::Failed(Failure {
            actions: vec!["x/a -> x/b: \"1\" < 2 & \u{1b}[31m".to_owned()],
            let_through: true,
            flows: Vec::new(),
        });
        let skipped = ran("c", true, Outcome::Skipped("no SCTP".to_owned()));
        let all = vec![ran("a", true, Outcome::Passed), strange, skipped];
        let text = report(Expectation::Enforced, all).junit(Duration::from_secs(2));
        assert!(
            text.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"2.000\""),
            "{text}"
        );
        assert!(text.contains("<testcase name=\"a\" classname=\"connectivity\" time=\"1.500\"/>"));
        assert!(
            text.contains("x/a -&gt; x/b: &quot;1&quot; &lt; 2 &amp; [31m</failure>"),
            "{text}"
        );
        assert!(text.contains("<skipped message=\"no SCTP\"/>"));
    }
}
