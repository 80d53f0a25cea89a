//! The initramfs of a guest: a `newc` cpio archive (the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::modules;
use crate::debian::{Kernel, Program};

/// What runs first in the guest.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin PALISADE_BIN=/palisade LD_LIBRARY_PATH=/libraries
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
while read -r module; do
    insmod \"/modules/$module.ko\" || echo \"cannot load $module\"
done < /modules/order
ip link set lo up
/kernel-check || echo \"KERNEL-CHECK: FAIL status $?\"
reboot -f
";

/// What a guest is made of.
pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) busybox: &'a Path,
    pub(super) nft: &'a Program,
    /// What runs first, and says how it went.
    pub(super) check: &'a Path,
    /// The agent.
    pub(super) palisade: &'a Path,
}

impl Guest<'_> {
    /// An archive that boots, loads modules and runs the check.
    pub(super) fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        let folders = [
            "bin",
            "dev",
            "lib",
            "lib64",
            "libraries",
            "modules",
            "proc",
            "run",
            "sbin",
            "sys",
            "tmp",
        ];
        for folder in folders {
            archive.folder(folder);
        }
        archive.file("init", INIT.as_bytes());
        archive.copy("bin/busybox", self.busybox)?;
        archive.copy("kernel-check", self.check)?;
        archive.copy("palisade", self.palisade)?;
        archive.copy("sbin/nft", &self.nft.file)?;
        for library in &self.nft.libraries {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            archive.copy(&format!("libraries/{name}"), library)?;
            if self.nft.linker.ends_with(&*name) {
                archive.copy(self.nft.linker, library)?;
            }
        }
        let mut order = String::new();
        for module in modules::collect(self.kernel)? {
            archive.file(&format!("modules/{}.ko", module.name), &module.content);
            order += &module.name;
            order.push('\n');
        }
        archive.file("modules/order", order.as_bytes());
        Ok(archive.end())
    }
}

/// Entries are numbered, executable and root's.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content);
    }

    /// What a file holds, under another name.
    fn copy(&mut self, name: &str, file: &Path) -> Result<()> {
        let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        self.file(name, &content);
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: usize, content: &[u8]) {
        self.entries += 1;
        let name_size = name.len() + 1;
        // Inode, mode, owner, group, links, time, size, devices (four words), name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end on words.
    fn pad(&mut self) {
        let words = self.bytes.len().div_ceil(4);
        self.bytes.resize(words * 4, 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_the_content() {
        let mut archive = Archive::default();
        archive.file("init", b"hello");
        let header = "07070100000001000081ed0000000000000000000000010000000000000005\
                      000000000000000000000000000000000000000500000000";
        let entry = [header.as_bytes(), b"init\0\0", b"hello\0\0\0"].concat();
        assert_eq!(archive.bytes, entry);
        assert_eq!(archive.bytes.len() % 4, 0);
        let whole = archive.end();
        assert!(whole.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
