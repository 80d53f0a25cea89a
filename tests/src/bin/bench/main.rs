//! What Palisade costs: packets, each beside a program that returns at once, in the same run; connections of a lab
//! with and without the programs; an agent while packets
//! are denied by the hundred thousand; updates of a large cluster. Prints Markdown.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

mod connections;
mod flood;
mod packets;
mod soak;
mod updates;

/// What a packet, a connection and an update cost.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Cli {
    /// Only these
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// For how many minutes `soak` goes on
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    minutes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Packets,
    Connections,
    Flood,
    Updates,
    /// Half an hour of churn, only where it is named
    Soak,
}

fn main() -> Result<()> {
    let Cli { parts, minutes } = Cli::parse();
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    if wanted(Part::Packets) {
        packets::print();
    }
    if wanted(Part::Connections) {
        connections::print()?;
    }
    if wanted(Part::Flood) {
        flood::print()?;
    }
    if wanted(Part::Updates) {
        updates::print();
    }
    if parts.contains(&Part::Soak) {
        soak::print(Duration::from_secs(60 * minutes))?;
    }
    Ok(())
}
