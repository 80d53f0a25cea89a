//! What the watch costs. `cargo run --release --package palisade-tests --bin watch-bench`, as root.

use anyhow::Result;
use clap::Parser;

mod crowd;
mod latency;
mod objects;

/// What the watch of the API server costs.
#[derive(Parser)]
enum Command {
    /// One agent, to which a server tells of a large cluster
    Latency(latency::Options),
    /// A real API server, to which all agents of a large cluster come
    Crowd(crowd::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Latency(options) => latency::run(&options),
        Command::Crowd(options) => crowd::run(&options),
    }
}
