//! `cargo xtask setup`: what the other commands need and the machine lacks.
//!
//! Every command asks for its own part, which says nothing when there is nothing to do. What is
//! built lies in the project's cache folder, so that it survives `cargo clean`.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    debian::Debian,
    dist::Target,
    shell::{self, command},
    toolchain,
};

/// Checks licences and sources of the dependencies.
const CARGO_DENY: &str = "0.20.2";

/// Holds objects against the schemas of Kubernetes; its version is that of the newest it knows.
const KUBERNETES_VALIDATE: &str = "1.37.0";

/// A program, or another file by its whole path, and the Debian package that has it.
pub(crate) type Program = (&'static str, &'static str);

/// Called by the tests and the demo.
pub(crate) const NETWORK: &[Program] = &[("ip", "iproute2"), ("nft", "nftables")];

/// Called by the checks of what is deployed.
pub(crate) const SCRIPTS: &[Program] = &[("shellcheck", "shellcheck")];

/// Called by `cargo xtask kernels`.
pub(crate) const EMULATOR: &[Program] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("xz", "xz-utils"),
];

/// Everything, at once.
pub(crate) fn run() -> Result<()> {
    programs(NETWORK)?;
    programs(SCRIPTS)?;
    programs(EMULATOR)?;
    ebpf()?;
    target(Target::host()?.triple())?;
    deny()?;
    validator()?;
    Debian::new(Target::host()?)?.prometheus()?;
    println!("everything is there");
    Ok(())
}

/// What the build script of the dataplane needs: the sources of `core` and the linker.
pub(crate) fn ebpf() -> Result<()> {
    let sysroot = sysroot()?;
    if !sysroot.join("lib/rustlib/src/rust/library/core").exists() {
        rustup("component", "rust-src")?;
    }
    let release = toolchain::rustc_says("rustc".as_ref(), "release")?;
    let linker = toolchain::bpf_linker(&release)?;
    let root = top(&linker)?;
    let _lock = lock(root)?;
    // One whose LLVM has moved away exists and does not start.
    if starts(&linker) {
        return Ok(());
    }
    let llvm = toolchain::rustc_says("rustc".as_ref(), "LLVM version")?;
    let (major, _) = llvm.split_once('.').context("the version of LLVM")?;
    let libraries = sysroot.join("lib");
    let prefix = root.join("llvm");
    link_llvm(&libraries, &prefix)?;
    let mut install = install("bpf-linker", toolchain::BPF_LINKER, root);
    install
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{major}"))
        .env("LLVM_PREFIX", &prefix)
        .env(
            "RUSTFLAGS",
            format!("-C link-arg=-Wl,-rpath,{}", libraries.display()),
        );
    shell::run(&mut install)?;
    clean(root)
}

/// The standard library of a target.
pub(crate) fn target(triple: &str) -> Result<()> {
    match sysroot()?.join("lib/rustlib").join(triple).exists() {
        true => Ok(()),
        false => rustup("target", triple),
    }
}

/// The checker of licences, bans and sources; where it is.
pub(crate) fn deny() -> Result<PathBuf> {
    let root = toolchain::cache()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    let _lock = lock(&root)?;
    if !starts(&program) {
        shell::run(&mut install("cargo-deny", CARGO_DENY, &root))?;
        clean(&root)?;
    }
    Ok(program)
}

/// The checker of Kubernetes' objects.
pub(crate) struct Validator {
    root: PathBuf,
}

impl Validator {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.root.join("bin/kubernetes-validate"));
        command.env("PYTHONPATH", &self.root);
        command
    }
}

/// Installs the checker of Kubernetes' objects from the Python Package Index.
pub(crate) fn validator() -> Result<Validator> {
    let name = format!("kubernetes-validate-{KUBERNETES_VALIDATE}");
    let root = toolchain::cache()?.join(name);
    let _lock = lock(&root)?;
    let validator = Validator { root };
    let mut version = validator.command();
    // One whose Python has moved on exists and does not start.
    if shell::output(version.arg("--version")).is_err() {
        programs(&[("pip3", "python3-pip")])?;
        let mut pip = command("python3 -m pip install --quiet --upgrade --target");
        pip.arg(&validator.root);
        pip.arg(format!("kubernetes-validate=={KUBERNETES_VALIDATE}"));
        shell::run(&mut pip)?;
    }
    Ok(validator)
}

/// Installs the packages of those programs that are not there.
pub(crate) fn programs(wanted: &[Program]) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let _lock = one_at_a_time()?;
    let packages = missing.join(" ");
    if !shell::is_root()? || shell::find("apt-get").is_none() {
        bail!("these are missing, install them first: apt-get install {packages}");
    }
    let apt = |words: &str| {
        let mut apt = command("apt-get --yes --no-install-recommends");
        apt.args(["-o", "DPkg::Lock::Timeout=300"])
            .args(words.split_whitespace())
            .env("DEBIAN_FRONTEND", "noninteractive");
        shell::run(&mut apt)
    };
    let install = format!("install {packages}");
    // The lists may be old, or absent as in most images.
    apt(&install).or_else(|_| {
        apt("update")?;
        apt(&install)
    })
}

/// `cargo install` of one version under a root, built there too.
fn install(name: &str, version: &str, root: &Path) -> Command {
    let mut install = command("cargo install --locked --force");
    install
        .args([name, "--version", version, "--root"])
        .arg(root)
        .arg("--target-dir")
        .arg(root.join("build"));
    install
}

fn clean(root: &Path) -> Result<()> {
    let build = root.join("build");
    fs::remove_dir_all(&build).with_context(|| format!("remove {}", build.display()))
}

/// A prefix as the linker's build wants it, of the one library that the toolchain brings.
fn link_llvm(libraries: &Path, prefix: &Path) -> Result<()> {
    let entries =
        fs::read_dir(libraries).with_context(|| format!("list {}", libraries.display()))?;
    let library = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libLLVM.so.")
        })
        .with_context(|| format!("no libLLVM.so in {}", libraries.display()))?;
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib")).with_context(|| format!("make {}", prefix.display()))?;
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
    }
    symlink(&library, &link).with_context(|| format!("link {}", link.display()))
}

fn rustup(kind: &str, name: &str) -> Result<()> {
    if shell::find("rustup").is_none() {
        bail!("the toolchain lacks the {kind} {name}, and there is no rustup to add it");
    }
    let _lock = one_at_a_time()?;
    shell::run(command("rustup").args([kind, "add", name]))
}

fn sysroot() -> Result<PathBuf> {
    let path = shell::output(&mut command("rustc --print sysroot"))?;
    Ok(path.trim_end().into())
}

fn starts(program: &Path) -> bool {
    let status = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The folder above `bin`.
fn top(program: &Path) -> Result<&Path> {
    let top = program.ancestors().nth(2);
    top.with_context(|| format!("{} has no folder", program.display()))
}

/// Neither apt nor rustup likes another beside it; to add what is there already costs them little.
fn one_at_a_time() -> Result<File> {
    lock(&toolchain::cache()?.join("setup"))
}

/// Keeps two checkouts from building the same tool at once, until it is dropped.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let lock = || {
        fs::create_dir_all(folder)?;
        let file = File::create(folder.join("lock"))?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    lock().with_context(|| format!("lock {}", folder.display()))
}
