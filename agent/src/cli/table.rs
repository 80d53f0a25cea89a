//! Tables as `kubectl` prints them: capital headers, no borders, three spaces between columns.

use std::fmt;

/// A table; cells are padded to the widest of their column.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(headers: [&str; N]) -> Self {
        Self {
            rows: vec![headers.map(str::to_owned).to_vec()],
        }
    }

    /// Of so many columns as there are headers, where their number is not known beforehand.
    pub(super) fn with_headers<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.add(headers);
        table
    }

    pub(super) fn add<'a>(&mut self, cells: impl Iterator<Item = &'a str>) {
        self.rows.push(cells.map(ToOwned::to_owned).collect());
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 3));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "AGE"]);
        table.row(["a-long-name".to_owned(), "1".to_owned()]);
        table.row(["é".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME          AGE\na-long-name   1\né\n");
    }
}
