//! What came of checks as JUnit's XML, which continuous integration servers read: testsuites, testsuite, testcase.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    time::Duration,
};

/// One run of checks.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) cases: Vec<Case>,
    /// How long all took, where that is of interest.
    pub(crate) took: Option<Duration>,
}

/// One check.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it belongs to: a file, or a suite again.
    pub(crate) class: String,
    pub(crate) name: String,
    /// Where it stands: the line, of the file that is its class.
    pub(crate) line: Option<usize>,
    pub(crate) took: Option<Duration>,
    pub(crate) result: Result,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    Passed,
    /// It failed: in a line, and in full.
    Failure(String, String),
    /// It could not be made.
    Error(String),
    /// It was left out, because of this.
    Skipped(String),
}

impl Display for Suite {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&Result) -> bool| {
            let results = self.cases.iter().map(|case| &case.result);
            results.filter(|result| is(result)).count()
        };
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"{}",
            self.cases.len(),
            count(|result| matches!(result, Result::Failure(..))),
            count(|result| matches!(result, Result::Error(_))),
            count(|result| matches!(result, Result::Skipped(_))),
            Time(self.took)
        );
        writeln!(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(f, "<testsuites {counts}>")?;
        writeln!(f, "  <testsuite name=\"{}\" {counts}>", Text(self.name))?;
        for case in &self.cases {
            writeln!(f, "    {case}")?;
        }
        writeln!(f, "  </testsuite>\n</testsuites>")
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (class, name) = (Text(&self.class), Text(&self.name));
        write!(f, "<testcase classname=\"{class}\" name=\"{name}\"")?;
        if let Some(line) = self.line {
            write!(f, " file=\"{class}\" line=\"{line}\"")?;
        }
        write!(f, "{}", Time(self.took))?;
        let (element, message, text) = match &self.result {
            Result::Passed => return f.write_str("/>"),
            Result::Failure(message, text) => ("failure", message, text.as_str()),
            Result::Error(message) => ("error", message, ""),
            Result::Skipped(message) => ("skipped", message, ""),
        };
        write!(f, "><{element} message=\"{}\"", Text(message))?;
        match text {
            "" => f.write_str("/>")?,
            text => write!(f, ">{}</{element}>", Text(text))?,
        }
        f.write_str("</testcase>")
    }
}

/// The attribute, if there is anything to say.
struct Time(Option<Duration>);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(time) = self.0 else { return Ok(()) };
        write!(f, " time=\"{:.3}\"", time.as_secs_f64())
    }
}

/// Text as XML has it; what XML 1.0 cannot hold is left out.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' => f.write_str("&#10;")?,
                letter if letter.is_control() => {}
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_case_and_texts_are_escaped() {
        let case = |name: &str, line, took, result| Case {
            class: "e&.txt".to_owned(),
            name: name.to_owned(),
            line,
            took: Some(Duration::from_millis(took)),
            result,
        };
        let (message, text) = ("\"x\" & <y>\u{1b}".to_owned(), "1\n2".to_owned());
        let mut suite = Suite {
            name: "palisade",
            cases: vec![
                case("a -> b", Some(1), 1500, Result::Passed),
                case("c", None, 0, Result::Failure(message, text)),
                case("d", None, 0, Result::Error("z".to_owned())),
                case("e", None, 0, Result::Skipped("no SCTP".to_owned())),
            ],
            took: None,
        };
        let counts = "tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"1\"";
        let expected = [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
            &format!("<testsuites {counts}>"),
            &format!("  <testsuite name=\"palisade\" {counts}>"),
            "    <testcase classname=\"e&amp;.txt\" name=\"a -&gt; b\" file=\"e&amp;.txt\" line=\"1\" time=\"1.500\"/>",
            "    <testcase classname=\"e&amp;.txt\" name=\"c\" time=\"0.000\">\
             <failure message=\"&quot;x&quot; &amp; &lt;y&gt;\">1&#10;2</failure></testcase>",
            "    <testcase classname=\"e&amp;.txt\" name=\"d\" time=\"0.000\"><error message=\"z\"/></testcase>",
            "    <testcase classname=\"e&amp;.txt\" name=\"e\" time=\"0.000\"><skipped message=\"no SCTP\"/></testcase>",
            "  </testsuite>",
            "</testsuites>\n",
        ];
        assert_eq!(suite.to_string(), expected.join("\n"));
        suite.took = Some(Duration::from_secs(2));
        assert!(suite.to_string().contains("skipped=\"1\" time=\"2.000\">"));
    }
}
