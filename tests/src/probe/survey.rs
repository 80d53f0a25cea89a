//! Matrices of a lab, compared with what they should be.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Attempt, Matrix, Mismatch, Outcome, Protocol, attempt, matrix::Expected};
use crate::lab::Lab;

/// One matrix to be looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// 4 or 6.
    pub family: u8,
    /// Who is to get through to whom; pairs that are not in it are not tried.
    pub expected: Expected,
}

impl Check {
    /// Everybody named gets through to every other.
    #[must_use]
    pub fn all_open(names: &[&str], port: u16, protocol: Protocol, family: u8) -> Self {
        let row = |from: &&str| {
            let others = names.iter().filter(|to| *to != from);
            let cells = others.map(|to| ((*to).to_owned(), true)).collect();
            ((*from).to_owned(), cells)
        };
        Self {
            port,
            protocol,
            family,
            expected: names.iter().map(row).collect(),
        }
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the answer to one attempt; a denied pair costs this much, all of them together.
    pub answer: Duration,
    /// For the matrix to become what it should be. A busy machine or a change on its way makes a cell
    /// wrong for a while; no cell stays wrong.
    pub settle: Duration,
    /// Whether to look once more when it has become so, as the suites do.
    pub confirm: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_millis(300),
            settle: Duration::from_secs(5),
            confirm: true,
        }
    }
}

/// One pair of one check.
struct Cell<'a> {
    check: usize,
    from: &'a str,
    to: &'a str,
    expected: bool,
    attempt: Attempt<'a>,
}

impl Lab {
    /// Looks once at all matrices, pods' own addresses being the targets. Whoever serves is made to.
    ///
    /// # Errors
    /// Where a name is unknown.
    pub fn look(&self, checks: &[Check], answer: Duration) -> Result<Vec<Matrix>> {
        self.look_at(checks, answer, &|name, check| {
            self.own_address(name, check.family)
        })
    }

    /// Looks once at all matrices, somebody else's addresses being the targets (a Service's, say).
    ///
    /// # Errors
    /// Where a name or an address is unknown.
    pub fn look_at(
        &self,
        checks: &[Check],
        answer: Duration,
        target: &dyn Fn(&str, &Check) -> Option<IpAddr>,
    ) -> Result<Vec<Matrix>> {
        let cells = self.cells(checks, answer, target)?;
        let mut matrices = empty(checks);
        try_all(&cells, &mut matrices)?;
        Ok(matrices)
    }

    /// Looks until all matrices are what they should be.
    ///
    /// # Errors
    /// A [`Mismatch`] where one is not in time, or is not any more on a second look.
    pub fn expect(&self, checks: &[Check], patience: Patience) -> Result<()> {
        self.expect_at(checks, patience, &|name, check| {
            self.own_address(name, check.family)
        })
    }

    /// The same with somebody else's addresses.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub fn expect_at(
        &self,
        checks: &[Check],
        patience: Patience,
        target: &dyn Fn(&str, &Check) -> Option<IpAddr>,
    ) -> Result<()> {
        let all = self.cells(checks, patience.answer, target)?;
        let mut matrices = empty(checks);
        let deadline = Instant::now() + patience.settle;
        let mut wrong: Vec<&Cell<'_>> = all.iter().collect();
        while !wrong.is_empty() {
            try_all(wrong.iter().copied(), &mut matrices)?;
            wrong.retain(|cell| cell.is_wrong(&matrices));
            if !wrong.is_empty() && Instant::now() > deadline {
                return mismatch(checks, matrices);
            }
        }
        if !patience.confirm {
            return Ok(());
        }
        try_all(&all, &mut matrices)?;
        let mut wrong: Vec<_> = all.iter().filter(|cell| cell.is_wrong(&matrices)).collect();
        // A packet that a busy machine lost is repeated; one that got through where it must not is
        // final.
        let deadline = Instant::now() + patience.settle;
        while !wrong.is_empty() {
            if wrong.iter().any(|cell| !cell.expected) || Instant::now() > deadline {
                return mismatch(checks, matrices);
            }
            try_all(wrong.iter().copied(), &mut matrices)?;
            wrong.retain(|cell| cell.is_wrong(&matrices));
        }
        Ok(())
    }

    fn own_address(&self, name: &str, family: u8) -> Option<IpAddr> {
        self.endpoint(name)?.address(family)
    }

    fn cells<'a>(
        &'a self,
        checks: &'a [Check],
        patience: Duration,
        target: &dyn Fn(&str, &Check) -> Option<IpAddr>,
    ) -> Result<Vec<Cell<'a>>> {
        let mut cells = Vec::new();
        for (number, check) in checks.iter().enumerate() {
            for (from, row) in &check.expected {
                let source = self.endpoint(from).with_context(|| format!("no {from}"))?;
                for (to, &expected) in row {
                    self.serve(to, check.port, check.protocol)?;
                    let address = target(to, check)
                        .with_context(|| format!("no IPv{} address of {to}", check.family))?;
                    cells.push(Cell {
                        check: number,
                        from,
                        to,
                        expected,
                        attempt: Attempt {
                            from: &source.namespace,
                            to: SocketAddr::new(address, check.port),
                            protocol: check.protocol,
                            patience,
                        },
                    });
                }
            }
        }
        Ok(cells)
    }
}

impl Cell<'_> {
    fn is_wrong(&self, matrices: &[Matrix]) -> bool {
        let seen = matrices[self.check].get(self.from, self.to);
        (seen == Some(Outcome::Answered)) != self.expected
    }
}

fn empty(checks: &[Check]) -> Vec<Matrix> {
    let matrix = |check: &Check| Matrix::new(check.port, check.protocol, check.family);
    checks.iter().map(matrix).collect()
}

fn try_all<'a>(
    cells: impl IntoIterator<Item = &'a Cell<'a>>,
    matrices: &mut [Matrix],
) -> Result<()> {
    let cells: Vec<_> = cells.into_iter().collect();
    let attempts: Vec<_> = cells.iter().map(|cell| cell.attempt).collect();
    for (cell, report) in cells.iter().zip(attempt(&attempts)?) {
        matrices[cell.check].set(cell.from, cell.to, report.outcome);
    }
    Ok(())
}

fn mismatch(checks: &[Check], matrices: Vec<Matrix>) -> Result<()> {
    let pairs = checks.iter().zip(matrices);
    let mut wrong = pairs.filter(|(check, seen)| !seen.differences(&check.expected).is_empty());
    match wrong.next() {
        Some((check, seen)) => Err(Mismatch {
            seen,
            expected: check.expected.clone(),
        }
        .into()),
        None => Ok(()),
    }
}
