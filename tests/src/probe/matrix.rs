//! Who reached whom, as a table to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use super::{Outcome, Protocol};

/// Rows connect, columns serve; `true` where they are to get through.
pub type Expected = BTreeMap<String, BTreeMap<String, bool>>;

/// The outcomes of a probe of many by many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// What was probed: `80/TCP over IPv4`.
    pub title: String,
    cells: BTreeMap<(String, String), Outcome>,
}

impl Matrix {
    /// An empty one.
    #[must_use]
    pub fn new(port: u16, protocol: Protocol, family: u8) -> Self {
        Self {
            title: format!("{port}/{protocol} over IPv{family}"),
            cells: BTreeMap::new(),
        }
    }

    /// Sets a cell.
    pub fn set(&mut self, from: &str, to: &str, outcome: Outcome) {
        self.cells.insert((from.to_owned(), to.to_owned()), outcome);
    }

    /// The outcome of one pair.
    #[must_use]
    pub fn get(&self, from: &str, to: &str) -> Option<Outcome> {
        self.cells.get(&(from.to_owned(), to.to_owned())).copied()
    }

    /// All cells: from, to, outcome.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &str, Outcome)> {
        let cells = self.cells.iter();
        cells.map(|((from, to), outcome)| (from.as_str(), to.as_str(), *outcome))
    }

    /// The cells that differ from what is expected.
    #[must_use]
    pub fn differences(&self, expected: &Expected) -> Vec<(&str, &str, Outcome)> {
        let wrong = |&(from, to, outcome): &(&str, &str, Outcome)| {
            let wanted = expected.get(from).and_then(|row| row.get(to));
            wanted.is_some_and(|wanted| *wanted != (outcome == Outcome::Answered))
        };
        self.cells().filter(wrong).collect()
    }

    /// A table of it. `cell` says how a cell looks and how many columns that takes.
    #[must_use]
    pub fn table(&self, cell: &dyn Fn(&str, &str, Outcome) -> (String, usize)) -> String {
        let rows: BTreeSet<_> = self.cells.keys().map(|(from, _)| from).collect();
        let columns: BTreeSet<_> = self.cells.keys().map(|(_, to)| to).collect();
        let margin = rows.iter().map(|name| name.len()).max().unwrap_or(0);
        // Writing to a String cannot fail.
        let mut table = format!("{:margin$}", "");
        for column in &columns {
            let _written = write!(table, "  {column}");
        }
        for row in rows {
            let _written = write!(table, "\n{row:margin$}");
            for column in &columns {
                let (text, width) = self
                    .get(row, column)
                    .map_or((" ".into(), 1), |outcome| cell(row, column, outcome));
                let space = column.len().saturating_sub(width);
                let _written = write!(table, "  {text}{:space$}", "");
            }
        }
        table
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |_: &str, _: &str, outcome| (symbol(outcome).to_owned(), 1);
        write!(f, "{}\n{}", self.title, self.table(&plain))
    }
}

/// A matrix that is not what it should be.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// What was seen.
    pub seen: Matrix,
    /// What should have been.
    pub expected: Expected,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = self.seen.differences(&self.expected);
        let marked = |from: &str, to: &str, outcome| {
            let symbol = symbol(outcome);
            if wrong.iter().any(|cell| (cell.0, cell.1) == (from, to)) {
                (format!("[{symbol}]"), 3)
            } else {
                (symbol.to_owned(), 1)
            }
        };
        writeln!(f, "{}: {} wrong", self.seen.title, wrong.len())?;
        write!(f, "{}", self.seen.table(&marked))?;
        for (from, to, outcome) in &wrong {
            let wanted = if *outcome == Outcome::Answered {
                "must not reach"
            } else {
                "must reach"
            };
            write!(f, "\n{from} {wanted} {to}: {outcome:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}

fn symbol(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "+",
        Outcome::Refused => "r",
        Outcome::Unreachable => "u",
        Outcome::Silent => ".",
    }
}
