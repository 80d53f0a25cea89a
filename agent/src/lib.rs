//! The agent: watches objects, compiles them and applies the result.
#![forbid(unsafe_code)]

pub mod api;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod config;
pub mod connectivity;
pub mod engine;
pub mod expect;
pub mod explain;
pub mod generate;
mod junit;
pub mod lint;
pub mod objects;
pub mod policies;
pub mod probe;
pub mod recorded;
pub mod report;
pub mod runtime;
pub mod simulate;
pub mod source;
pub mod telemetry;
pub mod uninstall;
mod watcher;
