//! Kernels and programs from Debian, without touching the machine's own packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    dist::Target,
    setup,
    shell::{self, command},
    tidy::walk,
    toolchain,
};

/// What signs Debian's archive, and its package where that is not Debian.
const KEYRING: setup::Program = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
);

/// Where a machine without a Debian mirror of its own finds one.
const MIRROR: &str = "http://deb.debian.org/debian";

/// A kernel in the cache.
pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

/// The suite of the programs that run beside any kernel.
const PROGRAMS: &str = "trixie";

/// The suite of those that run with the machine's own C library, which is no older.
const OLD_PROGRAMS: &str = "bookworm";

/// nft and all it is linked with; none of it minds an older kernel.
const NFT: &[&str] = &[
    "nftables",
    "libbsd0",
    "libc6",
    "libedit2",
    "libgmp10",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libtinfo6",
    "libxtables12",
];

/// A program with the libraries that it is linked with.
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    pub(crate) libraries: Vec<PathBuf>,
    /// Where the program looks for the linker, which is among the libraries.
    pub(crate) linker: &'static str,
}

/// Debian's archive of one architecture, and what was fetched from it before.
pub(crate) struct Debian {
    cache: PathBuf,
    target: Target,
}

impl Debian {
    pub(crate) fn new(target: Target) -> Result<Self> {
        let cache = toolchain::cache()?;
        Ok(Self { cache, target })
    }

    /// A cloud kernel of this version: one that is there, else the newest to be had.
    pub(crate) fn kernel(&self, version: &str, suite: &str) -> Result<Kernel> {
        let kernels = self.cache.join("kernels");
        let _lock = setup::lock(&kernels)?;
        let known = |release: &str| {
            let rest = release.strip_prefix(version);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        for entry in fs::read_dir(&kernels).context("list the kernels")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if known(&name) && name.ends_with(&flavour(self.target)) {
                return unpacked(&kernels.join(&name), &name);
            }
        }

        let suite = self.suite(suite)?;
        let packages = suite.kernels(version)?;
        let mut releases: Vec<_> = packages.iter().filter_map(|name| release(name)).collect();
        releases.sort_by_cached_key(|release| std::cmp::Reverse(numbers(release)));
        releases.dedup();
        let mut failures = Vec::new();
        for release in releases {
            let parts = packages.iter().filter(|name| name.ends_with(release));
            let parts: Vec<_> = parts.map(String::as_str).collect();
            let folder = kernels.join(release);
            match suite.fetch(&parts, &folder) {
                Ok(()) => return unpacked(&folder, release),
                // Lists name packages that the pool has no more.
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("none to be had: {}", failures.join("; "))
    }

    /// A static busybox.
    pub(crate) fn busybox(&self) -> Result<PathBuf> {
        let files = self.programs("busybox", PROGRAMS, &["busybox-static"])?;
        let found = files.into_iter().find(|file| file.ends_with("bin/busybox"));
        found.context("no busybox in its package")
    }

    /// nft, which translates the addresses of Services in a lab.
    pub(crate) fn nft(&self) -> Result<Program> {
        let files = self.programs("nft", PROGRAMS, NFT)?;
        let (places, linker) = match self.target {
            Target::X86_64 => ("x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
            Target::Aarch64 => ("aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
        };
        let file = files.iter().find(|file| file.ends_with("sbin/nft"));
        let library = |file: &&PathBuf| {
            let here = file.parent().is_some_and(|folder| folder.ends_with(places));
            // Programs ask for `libc.so.6`; what the name leads to may be called otherwise.
            let number = file.extension().and_then(|number| number.to_str());
            let name = file.with_extension("");
            here && number.is_some_and(|number| number.parse::<u32>().is_ok())
                && name.extension().is_some_and(|kind| kind == "so")
        };
        Ok(Program {
            file: file.context("no nft in its package")?.clone(),
            libraries: files.iter().filter(library).cloned().collect(),
            linker,
        })
    }

    /// Prometheus and its promtool; the folder of both. The package is not installed, for then it would start.
    pub(crate) fn prometheus(&self) -> Result<PathBuf> {
        let files = self.programs("prometheus", OLD_PROGRAMS, &["prometheus"])?;
        let found = files.iter().find(|file| file.ends_with("bin/promtool"));
        let folder = found.and_then(|file| file.parent());
        Ok(folder.context("no promtool in its package")?.to_owned())
    }

    /// The files of packages of a suite.
    fn programs(&self, name: &str, suite: &str, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let folder = self.cache.join(format!("{name}-{}", self.target.go_name()));
        let _lock = setup::lock(&self.cache.join("kernels"))?;
        if !folder.exists() {
            self.suite(suite)?.fetch(packages, &folder)?;
        }
        walk(&folder)
    }

    fn suite(&self, name: &str) -> Result<Suite> {
        Suite::update(&self.cache, name, self.target)
    }
}

/// How the names of the cloud kernels end. Debian calls architectures as Go does.
fn flavour(target: Target) -> String {
    format!("-cloud-{}", target.go_name())
}

/// Kernels come as one package or, of late, as image and modules apart.
const PARTS: &[&str] = &["linux-image-", "linux-binary-", "linux-modules-"];

fn release(package: &str) -> Option<&str> {
    PARTS.iter().find_map(|part| package.strip_prefix(part))
}

/// The numbers in a release, to order by.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// Finds the parts of an unpacked kernel.
fn unpacked(folder: &Path, release: &str) -> Result<Kernel> {
    let places = [
        folder.join("usr/lib/modules").join(release),
        folder.join("lib/modules").join(release),
    ];
    let modules = places.into_iter().find(|place| place.exists());
    let modules = modules.with_context(|| format!("no modules in {}", folder.display()))?;
    let images = [
        modules.join("vmlinuz"),
        folder.join(format!("boot/vmlinuz-{release}")),
    ];
    let image = images.into_iter().find(|image| image.exists());
    Ok(Kernel {
        release: release.to_owned(),
        image: image.with_context(|| format!("no kernel in {}", folder.display()))?,
        modules,
    })
}

/// One suite, with package lists of its own.
struct Suite {
    name: String,
    target: Target,
    folder: PathBuf,
}

impl Suite {
    fn update(cache: &Path, name: &str, target: Target) -> Result<Self> {
        setup::programs(&[KEYRING])?;
        let folder = format!("{name}-{}", target.go_name());
        let folder = cache.join("apt").join(folder);
        for part in ["lists/partial", "archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
        }
        let source = format!("deb [signed-by={}] {} {name} main\n", KEYRING.0, mirror()?);
        fs::write(folder.join("sources.list"), source).context("write a list of sources")?;
        let suite = Self {
            name: name.to_owned(),
            target,
            folder,
        };
        shell::output(suite.apt("apt-get").args(["--quiet", "update"]))?;
        Ok(suite)
    }

    /// The packages of all cloud kernels of a version.
    fn kernels(&self, version: &str) -> Result<Vec<String>> {
        let version = version.replace('.', r"\.");
        let flavour = flavour(self.target);
        let pattern = format!("^linux-(image|binary|modules)-{version}\\..*{flavour}$");
        let mut search = self.apt("apt-cache");
        let found = shell::output(search.args(["search", "--names-only", &pattern]))?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        let names: Vec<_> = names.map(str::to_owned).collect();
        ensure!(!names.is_empty(), "{} has none", self.name);
        Ok(names)
    }

    /// Downloads packages and unpacks them into one folder, which is there whole or not at all.
    fn fetch(&self, packages: &[&str], folder: &Path) -> Result<()> {
        println!("fetching {} from {}", packages.join(", "), self.name);
        let partial = self.folder.join("fetched");
        if partial.exists() {
            fs::remove_dir_all(&partial).context("remove what was fetched in part")?;
        }
        fs::create_dir_all(&partial).context("make a folder to fetch into")?;
        let mut download = self.apt("apt-get");
        download.args(["--quiet", "download"]).args(packages);
        shell::output(download.current_dir(&partial))?;
        let root = partial.join("root");
        for package in walk(&partial)? {
            let mut unpack = command("dpkg-deb --extract");
            shell::output(unpack.arg(&package).arg(&root))?;
        }
        fs::rename(&root, folder).with_context(|| format!("make {}", folder.display()))?;
        fs::remove_dir_all(&partial).context("remove the packages")
    }

    /// The machine's own configuration, but for sources, lists and preferences.
    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program);
        let mut option = |name: &str, value: &str| {
            apt.args(["-o", &format!("{name}={value}")]);
        };
        let place = |name: &str| self.folder.join(name).display().to_string();
        option("Dir::Etc::sourcelist", &place("sources.list"));
        option("Dir::Etc::sourceparts", "/dev/null");
        option("Dir::Etc::preferences", "/dev/null");
        option("Dir::Etc::preferencesparts", "/dev/null");
        option("Dir::State::lists", &place("lists"));
        option("Dir::Cache", &place(""));
        option("APT::Architecture", self.target.go_name());
        option("APT::Architectures", self.target.go_name());
        option("APT::Sandbox::User", "root");
        option("Acquire::Languages", "none");
        option(
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
            "false",
        );
        apt
    }
}

/// The mirror that the machine itself uses.
fn mirror() -> Result<String> {
    let ask = || {
        let mut ask = command("apt-get indextargets --format");
        shell::output(ask.arg("$(LABEL) $(REPO_URI)"))
    };
    let mut said = ask()?;
    if said.is_empty() && shell::is_root()? {
        // The lists, which bring the labels, are cleaned away in most images.
        shell::run(&mut command("apt-get --quiet update"))?;
        said = ask()?;
    }
    let own = said.lines().find_map(|line| line.strip_prefix("Debian "));
    Ok(own.unwrap_or(MIRROR).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_has_the_greatest_numbers() {
        let mut releases = [
            "6.12.94+deb13-cloud-amd64",
            "6.12.107+deb13-cloud-amd64",
            "6.12.9+deb13-cloud-amd64",
        ];
        releases.sort_by_cached_key(|release| std::cmp::Reverse(numbers(release)));
        assert_eq!(numbers(releases[0])[..3], [6, 12, 107]);
        assert_eq!(numbers(releases[2])[..3], [6, 12, 9]);
    }

    #[test]
    fn a_release_is_what_follows_the_part() {
        let package = "linux-modules-7.2.13+deb14-cloud-amd64";
        assert_eq!(release(package), Some("7.2.13+deb14-cloud-amd64"));
        assert_eq!(release("linux-headers-7.2.13"), None);
    }
}
