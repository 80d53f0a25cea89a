//! The programs of a control plane, and what stands beside one.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The folders, below the project's cache, where `cargo xtask` puts them.
const BUILT: [&str; 5] = [
    "kubernetes-1.36.3/bin",
    "etcd-3.6.5/bin",
    "cni-plugins-1.9.1/bin",
    "prometheus-amd64/usr/bin",
    "prometheus-arm64/usr/bin",
];

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Assets {
    pub(super) etcd: PathBuf,
    pub(super) kube_apiserver: PathBuf,
}

impl Assets {
    pub(super) fn find() -> Result<Self> {
        Ok(Self {
            etcd: program("etcd")?,
            kube_apiserver: program("kube-apiserver")?,
        })
    }
}

/// A program of a cluster: in the folder that the variable KUBEBUILDER_ASSETS names, else where it was built.
///
/// # Errors
/// Where it is in neither.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut folders: Vec<_> = env::var_os("KUBEBUILDER_ASSETS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.filter(|base| base.is_absolute());
    let base = base.or_else(|| Some(env::home_dir()?.join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set")?;
    folders.extend(BUILT.map(|folder| base.join("palisade").join(folder)));
    let mut paths = folders.iter().map(|folder| folder.join(name));
    let found = paths.find(|path| Path::is_file(path));
    found.with_context(|| format!("no {name}: `cargo xtask test` brings it"))
}
