//! What is printed.

use std::{collections::BTreeMap, env, io::IsTerminal};

use palisade_tests::probe::Outcome;

use crate::story::{clients, servers};

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// In colour on a terminal, unless NO_COLOR says no (no-color.org).
    pub(super) fn detect() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// One pair: what was seen, and who decided if it was denied.
pub(super) struct Cell {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) seen: Outcome,
    /// Whether policy says what was seen.
    pub(super) agrees: bool,
    pub(super) reason: Option<String>,
}

/// The table of all pairs, each denied one with the number of a note that names the policy.
pub(super) fn table(cells: &[Cell], paint: Paint) -> String {
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for reason in cells.iter().filter_map(|cell| cell.reason.as_deref()) {
        notes.entry(reason).or_insert_with(|| {
            order.push(reason);
            order.len()
        });
    }
    let mut lines = vec![format!("  {:10}", "")];
    for server in servers() {
        let heading = server
            .serves
            .map_or_else(String::new, |(port, ..)| format!("{}:{port}", server.short));
        lines[0] += &format!("{heading:14}");
    }
    for client in clients() {
        let mut line = format!("  {:10}", client.short);
        for server in servers() {
            let cell = cells
                .iter()
                .find(|cell| (cell.from, cell.to) == (client.name, server.name));
            let note = cell.and_then(|cell| notes.get(cell.reason.as_deref()?));
            let note = note.map_or_else(String::new, usize::to_string);
            let (text, painted) = match cell {
                None => ("-".to_owned(), paint.dim("-")),
                Some(cell) if !cell.agrees => ("? wrong".to_owned(), paint.bold("? wrong")),
                Some(cell) if cell.seen == Outcome::Answered => ("✓".to_owned(), paint.good("✓")),
                Some(_) => (
                    format!("✗ {note}"),
                    format!("{} {}", paint.bad("✗"), paint.dim(&note)),
                ),
            };
            let space = 14_usize.saturating_sub(text.chars().count());
            line += &format!("{painted}{:space$}", "");
        }
        lines.push(line.trim_end().to_owned());
    }
    for (number, reason) in (1..).zip(order) {
        lines.push(paint.dim(&format!("  {number:2} {reason}")));
    }
    lines.join("\n")
}
