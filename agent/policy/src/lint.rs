//! What is probably not meant: rules and selectors that do nothing, and what is easily forgotten.
//!
//! Nothing here is an error to the API server, and none of it keeps a policy from being in force as it is written.
//! Pods are looked at in groups, as the compiler does, for a cluster has many pods and few kinds of them.

use std::collections::BTreeMap;

use crate::{
    index::Index,
    model::{Key, Name, NamedPort},
    population::Population,
};

pub use self::problem::{Nearest, Problem, Severity};

mod blocks;
mod dns;
mod namespaces;
mod nearest;
mod ports;
mod problem;
mod rules;
mod selectors;
mod services;

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object that has it.
    pub object: Key,
    /// The field of the object, as a path; empty where the whole is meant.
    pub field: String,
    /// What it is.
    pub problem: Problem,
}

/// Everything found, by object and field. `declared` are the ports that the containers of pods declare, those without a
/// name too.
#[must_use]
pub fn lint(index: &Index, declared: &BTreeMap<Name, Vec<NamedPort>>) -> Vec<Finding> {
    let population = Population::of(index);
    let mut findings = Vec::new();
    selectors::check(&population, &mut findings);
    ports::check(&population, &mut findings);
    dns::check(&population, &mut findings);
    rules::check(index, &mut findings);
    namespaces::check(&population, &mut findings);
    blocks::check(index, &mut findings);
    services::check(&population, declared, &mut findings);
    findings.sort_by(|one, other| (&one.object, &one.field).cmp(&(&other.object, &other.field)));
    findings
}

#[cfg(test)]
mod tests;
