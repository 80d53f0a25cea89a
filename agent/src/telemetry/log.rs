//! The log: lines on standard error.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Libraries that tell more than anybody asked for.
const TALKATIVE: &str = "aya=info,aya_obj=info,hyper=info,hyper_util=info";

/// Starts logging, once per process.
///
/// # Errors
///
/// The filter cannot be read.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(format!("{TALKATIVE},{filter}"))
        .with_context(|| format!("while reading --log {filter:?}"))?;
    // Colours are for eyes alone, and not for all of them (no-color.org).
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !unwanted);
    match format {
        LogFormat::Text => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
