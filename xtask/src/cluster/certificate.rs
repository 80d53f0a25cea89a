//! The cluster's own authority and what it vouches for.

use anyhow::Result;

use super::run::Run;
use crate::shell::{self, command};

const NEW: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365";

/// Makes `ca.crt` and `ca.key`.
pub(super) fn authority(run: &Run) -> Result<()> {
    new(run, "ca", "/CN=palisade-cluster", &[])
}

/// Makes `NAME.crt` and `NAME.key` of a server with these addresses.
pub(super) fn server(run: &Run, name: &str, addresses: &[&str]) -> Result<()> {
    let addresses: Vec<_> = addresses.iter().map(|one| format!("IP:{one}")).collect();
    let extension = format!("subjectAltName={}", addresses.join(","));
    new(run, name, &format!("/CN={name}"), &[&extension])
}

/// Makes `NAME.crt` and `NAME.key` of a user who may do everything.
pub(super) fn administrator(run: &Run, name: &str) -> Result<()> {
    new(run, name, &format!("/O=system:masters/CN={name}"), &[])
}

fn new(run: &Run, name: &str, subject: &str, extensions: &[&str]) -> Result<()> {
    let mut openssl = command(NEW);
    openssl.args(["-subj", subject, "-keyout"]);
    openssl.arg(run.path(format!("{name}.key")));
    openssl.arg("-out").arg(run.path(format!("{name}.crt")));
    for extension in extensions {
        openssl.args(["-addext", extension]);
    }
    if name != "ca" {
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-CA"]);
        openssl.arg(run.path("ca.crt"));
        openssl.arg("-CAkey").arg(run.path("ca.key"));
    }
    shell::bytes(&mut openssl)?;
    Ok(())
}
