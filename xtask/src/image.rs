//! `cargo xtask image`: the image that nodes run, as an archive, made without a container engine.

use std::path::PathBuf;

use anyhow::Result;

use self::archive::Image;
use crate::{
    dist::{self, Target},
    workspace,
};

pub(crate) mod archive;

/// Where the image has the binary: on its `PATH`, so that `kubectl exec` finds it by name.
const PROGRAM: &str = "usr/bin/palisade";

pub(crate) fn run(options: &dist::Options) -> Result<()> {
    let (archive, name) = build(options.target()?)?;
    println!(
        "{}: {name}, made of the static binary alone; try",
        archive.display()
    );
    for command in [
        "kind load image-archive",
        "minikube image load",
        "docker load --input",
        "ctr --namespace k8s.io images import",
    ] {
        println!("  {command} {}", archive.display());
    }
    Ok(())
}

/// Builds the image for an architecture; its archive, and the name that the chart asks for.
pub(crate) fn build(target: Target) -> Result<(PathBuf, String)> {
    let program = dist::binary(target)?;
    let name = format!("palisade:{}", workspace::version()?);
    let archive = dist::folder()?.join(format!("palisade-image-{}.tar", target.name()));
    Image {
        names: &[&name],
        architecture: target.go_name(),
        program: (PROGRAM, &program),
        arguments: &["agent"],
    }
    .write(&archive)?;
    Ok((archive, name))
}
