//! What cargo knows of this workspace.

use std::{path::PathBuf, sync::OnceLock};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// Packages and their dependencies, as resolved.
pub(crate) fn metadata() -> Result<&'static Metadata> {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    if let Some(metadata) = METADATA.get() {
        return Ok(metadata);
    }
    let metadata = MetadataCommand::new()
        .exec()
        .context("run cargo metadata")?;
    Ok(METADATA.get_or_init(|| metadata))
}

/// Where cargo builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    Ok(metadata()?.target_directory.clone().into())
}

/// Of everything here.
pub(crate) fn version() -> Result<String> {
    let packages = metadata()?.workspace_packages().into_iter();
    let mut versions = packages.map(|package| package.version.to_string());
    versions.next().context("a workspace without packages")
}
