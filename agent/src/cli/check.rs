//! `palisade check`: whether a node has what the agent needs, before it is installed.

use std::{fmt::Write as _, path::PathBuf};

use super::{Exit, Output, print, print_json, table::Table};
use crate::check::{self, Places, Report, Severity};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the pins, in a BPF file system.
    #[arg(long, value_name = "DIR", env = "PALISADE_BPFFS", default_value = crate::config::BPFFS)]
    bpffs: PathBuf,
    /// Folder where the runtime looks for its network plugins.
    #[arg(
        long,
        value_name = "DIR",
        env = "PALISADE_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d"
    )]
    cni_conf_dir: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Exit {
    let report = check::node(&Places {
        bpffs: args.bpffs.clone(),
        cni: args.cni_conf_dir.clone(),
    });
    match args.output {
        Output::Json => print_json(&report),
        Output::Text => print(&text(&report)),
    }
    if report.ok { Exit::Yes } else { Exit::No }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(["CHECK", "RESULT", "FOUND"]);
    let mut failed = 0;
    for finding in &report.checks {
        let result = match finding.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        failed += usize::from(!finding.ok);
        table.row([
            finding.name.to_owned(),
            result.to_owned(),
            finding.message.clone(),
        ]);
    }
    let mut text = table.to_string();
    if failed > 0 {
        writeln!(text, "\nPalisade cannot run here: errors: {failed}")
            .expect("a String takes every text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Finding;

    #[test]
    fn the_text_says_what_is_wrong() {
        let finding = |name, severity, message: &str| Finding {
            name,
            ok: severity != Severity::Error,
            severity,
            message: message.to_owned(),
        };
        let mut report = Report::of(vec![
            finding("kernel", Severity::Ok, "Linux 6.1"),
            finding("cni", Severity::Warning, "none"),
        ]);
        let expected =
            "CHECK    RESULT    FOUND\nkernel   ok        Linux 6.1\ncni      warning   none\n";
        assert_eq!(text(&report), expected);
        report.checks.push(finding("bpffs", Severity::Error, "no"));
        let expected =
            format!("{expected}bpffs    error     no\n\nPalisade cannot run here: errors: 1\n");
        assert_eq!(text(&report), expected);
    }
}
