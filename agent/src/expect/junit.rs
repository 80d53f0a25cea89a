//! A report as JUnit XML, in the form that continuous integration servers read: testsuites, testsuite, testcase.

use std::fmt::Write as _;

use super::{Judged, Outcome, Report};

/// The report; each expectation is a test case of the class `file`.
#[must_use]
pub fn xml(report: &Report, file: &str) -> String {
    let count = |outcome| {
        let all = report.expectations.iter();
        all.filter(|it| it.outcome == outcome).count()
    };
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\"",
        report.expectations.len(),
        count(Outcome::Fails),
        count(Outcome::Unknown)
    );
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let file = escape(file);
    write!(
        text,
        "<testsuites {counts}>\n  <testsuite name=\"palisade verify\" {counts}>\n"
    )
    .expect("a String takes every text");
    for judged in &report.expectations {
        case(&mut text, judged, &file).expect("a String takes every text");
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(text: &mut String, judged: &Judged, file: &str) -> std::fmt::Result {
    let name = escape(&judged.expectation);
    let reason = escape(judged.reason.as_deref().unwrap_or_default());
    let line = judged.line;
    write!(
        text,
        "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{line}\""
    )?;
    let element = match judged.outcome {
        Outcome::Holds => return writeln!(text, "/>"),
        Outcome::Fails => "failure",
        Outcome::Unknown => "error",
    };
    writeln!(
        text,
        ">\n      <{element} message=\"{reason}\"/>\n    </testcase>"
    )
}

/// For attributes. What XML 1.0 cannot hold is left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expectation_is_a_case_and_texts_are_escaped() {
        let judged = |line, outcome, reason: Option<&str>| Judged {
            line,
            expectation: "a/b -> c/d deny".to_owned(),
            outcome,
            reason: reason.map(ToOwned::to_owned),
        };
        let report = Report {
            holds: false,
            expectations: vec![
                judged(1, Outcome::Holds, None),
                judged(2, Outcome::Fails, Some("\"x\" & <y>\u{1b}")),
                judged(3, Outcome::Unknown, Some("z")),
            ],
        };
        let counts = "tests=\"3\" failures=\"1\" errors=\"1\"";
        let case = |line| {
            format!(
                "<testcase classname=\"e&amp;.txt\" name=\"a/b -&gt; c/d deny\" file=\"e&amp;.txt\" line=\"{line}\""
            )
        };
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  \
             <testsuite name=\"palisade verify\" {counts}>\n    {}/>\n    \
             {}>\n      <failure message=\"&quot;x&quot; &amp; &lt;y&gt;\"/>\n    </testcase>\n    \
             {}>\n      <error message=\"z\"/>\n    </testcase>\n  </testsuite>\n</testsuites>\n",
            case(1),
            case(2),
            case(3)
        );
        assert_eq!(xml(&report, "e&.txt"), expected);
    }
}
