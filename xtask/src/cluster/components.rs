//! The programs of a Kubernetes: built from Go packages once, kept in the project's cache.
//!
//! What cannot be installed by name (the modules of Kubernetes replace their parts by folders) has
//! a module below `xtask/cluster` that names it as its tools; its `go.mod` says the version, its
//! `go.sum` what the sources are.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    setup,
    shell::{self, command},
    toolchain,
};

/// The version that is run and tested against where none is asked for.
pub(crate) const DEFAULT: &str = "1.36";

/// A folder with these, as users of envtest have one: it is believed to fit.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";
const CONTROL_PLANE: &[&str] = &["etcd", "kube-apiserver", "kubectl"];

const HEADERS: &[setup::Program] = &[
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("/usr/include/seccomp.h", "libseccomp-dev"),
];

/// Programs that are built together.
pub(crate) struct Component {
    name: &'static str,
    version: String,
    /// The folder of the module whose tools they are; none if they are installed by version.
    module: Option<PathBuf>,
    programs: &'static [Program],
    /// What the linker writes into them.
    stamp: String,
}

/// A program and how it is built.
struct Program {
    name: &'static str,
    package: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Static,
    /// With code in C.
    Dynamic,
    /// The tests of a package.
    Test,
}

const fn plain(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        kind: Kind::Static,
    }
}

const KUBERNETES: &[Program] = &[
    plain("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    plain("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    plain(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    plain("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    plain("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    Program {
        name: "kubelet",
        package: "k8s.io/kubernetes/cmd/kubelet",
        kind: Kind::Dynamic,
    },
    plain("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    Program {
        name: "e2e.test",
        package: "k8s.io/kubernetes/test/e2e",
        kind: Kind::Test,
    },
    plain("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
];

const ETCD: &[Program] = &[plain("etcd", "go.etcd.io/etcd/server/v3")];

const CONTAINERD: &[Program] = &[
    plain(
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    plain(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    plain("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
];

const RUNC: &[Program] = &[Program {
    name: "runc",
    package: "github.com/opencontainers/runc",
    kind: Kind::Dynamic,
}];

const PLUGINS: &[Program] = &[
    plain(
        "ptp",
        "github.com/containernetworking/plugins/plugins/main/ptp",
    ),
    plain(
        "bridge",
        "github.com/containernetworking/plugins/plugins/main/bridge",
    ),
    plain(
        "loopback",
        "github.com/containernetworking/plugins/plugins/main/loopback",
    ),
    plain(
        "host-local",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ),
    plain(
        "portmap",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ),
];

const FLANNEL: &[Program] = &[Program {
    name: "flanneld",
    package: "github.com/flannel-io/flannel",
    kind: Kind::Dynamic,
}];

const HELM: &[Program] = &[plain("helm", "helm.sh/helm/v3/cmd/helm")];

impl Component {
    /// Kubernetes of a minor version.
    pub(crate) fn kubernetes(minor: &str) -> Result<Self> {
        let package = "k8s.io/kubernetes";
        let folder = format!("kubernetes-{minor}");
        let component = Self::of_module("kubernetes", &folder, package, KUBERNETES);
        let mut component = component.with_context(|| {
            let known = minors().unwrap_or_default().join(", ");
            format!("no Kubernetes {minor} here, there are: {known}")
        })?;
        let digits = minor.split_once('.').map_or("", |(_, digits)| digits);
        for place in [
            "k8s.io/component-base/version",
            "k8s.io/client-go/pkg/version",
        ] {
            component.stamp += &format!(
                " -X {place}.gitVersion=v{} -X {place}.gitMajor=1 -X {place}.gitMinor={digits}",
                component.version
            );
        }
        Ok(component)
    }

    pub(crate) fn etcd() -> Result<Self> {
        Self::of_module("etcd", "etcd", "go.etcd.io/etcd/server/v3", ETCD)
    }

    pub(crate) fn containerd() -> Self {
        Self::of_version("containerd", "2.4.2", CONTAINERD)
    }

    pub(crate) fn runc() -> Self {
        Self::of_version("runc", "1.5.2", RUNC)
    }

    pub(crate) fn plugins() -> Self {
        Self::of_version("cni-plugins", "1.9.1", PLUGINS)
    }

    pub(crate) fn flannel() -> Self {
        Self::of_version("flannel", "0.26.7", FLANNEL)
    }

    pub(crate) fn helm() -> Self {
        Self::of_version("helm", "3.22.0", HELM)
    }

    fn of_version(name: &'static str, version: &str, programs: &'static [Program]) -> Self {
        Self {
            name,
            version: version.to_owned(),
            module: None,
            programs,
            stamp: String::new(),
        }
    }

    fn of_module(
        name: &'static str,
        folder: &str,
        package: &str,
        programs: &'static [Program],
    ) -> Result<Self> {
        let module = shell::root()?.join("xtask/cluster").join(folder);
        let file = module.join("go.mod");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let version = required(&text, package);
        let version = version.with_context(|| format!("{}: no {package}", file.display()))?;
        Ok(Self {
            name,
            version: version.to_owned(),
            module: Some(module),
            programs,
            stamp: String::new(),
        })
    }

    /// Builds those of these programs that are not there; the folder where they are.
    pub(crate) fn build(&self, wanted: &[&str]) -> Result<PathBuf> {
        let root = toolchain::cache()?.join(format!("{}-{}", self.name, self.version));
        let folder = root.join("bin");
        let programs = self.programs.iter();
        let programs = programs.filter(|program| wanted.contains(&program.name));
        let _lock = setup::lock(&root)?;
        for program in programs.filter(|program| !folder.join(program.name).exists()) {
            let start = Instant::now();
            self.make(program, &root)?;
            let (name, version) = (program.name, &self.version);
            println!("{name} {version}: built in {} s", start.elapsed().as_secs());
        }
        Ok(folder)
    }

    /// Builds all of its programs.
    pub(crate) fn build_all(&self) -> Result<PathBuf> {
        let names: Vec<_> = self.programs.iter().map(|program| program.name).collect();
        self.build(&names)
    }

    /// A program appears whole or not at all.
    fn make(&self, program: &Program, root: &Path) -> Result<()> {
        let scratch = root.join("build");
        let folder = root.join("bin");
        let prepare = || {
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            fs::create_dir_all(&scratch)?;
            fs::create_dir_all(&folder)
        };
        prepare().with_context(|| format!("make folders in {}", root.display()))?;
        shell::run(&mut self.go(program, &scratch)?)?;
        let mut built = fs::read_dir(&scratch)?;
        let built = built.next().context("the build made nothing")??.path();
        let place = folder.join(program.name);
        fs::rename(&built, &place).with_context(|| format!("make {}", place.display()))?;
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))
    }

    fn go(&self, program: &Program, scratch: &Path) -> Result<Command> {
        let (words, c) = match (program.kind, &self.module) {
            (Kind::Test, _) => ("test -c -vet=off", "0"),
            (Kind::Static, Some(_)) => ("build", "0"),
            (Kind::Static, None) => ("install", "0"),
            (Kind::Dynamic, Some(_)) => ("build", "1"),
            (Kind::Dynamic, None) => ("install", "1"),
        };
        if program.kind == Kind::Dynamic {
            setup::programs(HEADERS)?;
        }
        let mut go = command(&format!("{} {words} -trimpath", compiler()?.display()));
        go.env("CGO_ENABLED", c);
        go.args(["-ldflags", &format!("-s -w{}", self.stamp)]);
        if program.name == "runc" {
            go.args(["-tags", "seccomp"]);
        }
        match &self.module {
            Some(module) => go
                .current_dir(module)
                .arg("-o")
                .arg(scratch.join(program.name))
                .arg(program.package),
            None => go
                .env("GOBIN", scratch)
                .arg(format!("{}@v{}", program.package, self.version)),
        };
        Ok(go)
    }
}

/// The folder of etcd, kube-apiserver and kubectl: the user's own, or built.
pub(crate) fn control_plane(minor: &str) -> Result<PathBuf> {
    if let Some(folder) = env::var_os(ASSETS).map(PathBuf::from) {
        for program in CONTROL_PLANE {
            let program = folder.join(program);
            ensure!(program.exists(), "{ASSETS}: no {}", program.display());
        }
        return Ok(folder);
    }
    let etcd = Component::etcd()?.build_all()?.join("etcd");
    let folder = Component::kubernetes(minor)?.build(CONTROL_PLANE)?;
    let link = folder.join("etcd");
    if fs::read_link(&link).ok().as_ref() != Some(&etcd) {
        let fresh = folder.join(format!("etcd.{}", std::process::id()));
        symlink(&etcd, &fresh).with_context(|| format!("make {}", fresh.display()))?;
        fs::rename(&fresh, &link).with_context(|| format!("make {}", link.display()))?;
    }
    Ok(folder)
}

/// Builds what changes packets on a node beside an agent.
pub(crate) fn beside_agents(minor: &str) -> Result<()> {
    Component::kubernetes(minor)?.build(&["kube-proxy"])?;
    Component::plugins().build_all()?;
    Ok(())
}

/// The minor versions that there are modules of.
fn minors() -> Result<Vec<String>> {
    let folder = shell::root()?.join("xtask/cluster");
    let mut minors = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        minors.extend(name.strip_prefix("kubernetes-").map(str::to_owned));
    }
    minors.sort();
    Ok(minors)
}

/// Where Go is.
pub(crate) fn compiler() -> Result<PathBuf> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    match shell::find("go") {
        Some(go) => Ok(go),
        None if usual.exists() => Ok(usual),
        None => {
            bail!("Go is missing, install it first: https://go.dev/doc/install")
        }
    }
}

/// The version of a package that the text of a `go.mod` requires.
fn required<'a>(text: &'a str, package: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        let version = line.strip_prefix(package)?.strip_prefix(" v")?;
        version.split(' ').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_the_version_of_what_it_is_for() {
        let text = "module m\n\ntool a.b/c/cmd\n\nrequire a.b/c v1.2.3\n\nrequire (\n\
                    \ta.b/d/v3 v3.1.0 // indirect\n)\n\nreplace a.b/c/x => a.b/c/x v0.1.0\n";
        assert_eq!(required(text, "a.b/c"), Some("1.2.3"));
        assert_eq!(required(text, "a.b/d/v3"), Some("3.1.0"));
        assert_eq!(required(text, "a.b/c/x"), None);
    }

    #[test]
    fn every_committed_module_is_of_the_version_that_names_its_folder() -> Result<()> {
        let minors = minors()?;
        assert!(minors.iter().any(|minor| minor == DEFAULT));
        for minor in minors {
            let version = Component::kubernetes(&minor)?.version;
            assert!(version.starts_with(&format!("{minor}.")), "{version}");
        }
        Component::etcd()?;
        Ok(())
    }

    #[test]
    fn an_unknown_version_is_refused_with_those_that_are_known() {
        let refused = Component::kubernetes("1.2").err();
        let said = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(DEFAULT), "{said}");
    }
}
