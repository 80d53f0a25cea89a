//! One boot under emulation.

use std::{
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{debian::Kernel, dist::Target, setup};

/// What a guest may take: a boot is seconds, the checks some minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// What emulates an architecture, and its Debian package.
pub(super) fn emulator(target: Target) -> setup::Program {
    match target {
        Target::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Target::Aarch64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

/// The emulator's words for a machine, and its serial line.
fn hardware(target: Target) -> (&'static str, &'static str) {
    match target {
        // The emulator's cmpxchg16b leaves garbage in EFLAGS, which kills kernels whose allocator
        // uses it (6.5 and later) and can spoil a result; without the feature they take a lock.
        Target::X86_64 => ("-machine pc -cpu Nehalem,-cx16", "ttyS0"),
        Target::Aarch64 => ("-machine virt -cpu cortex-a72", "ttyAMA0"),
    }
}

/// A machine to be booted.
pub(super) struct Machine {
    pub(super) target: Target,
    pub(super) kernel: Kernel,
    pub(super) initramfs: PathBuf,
}

impl Machine {
    /// Boots and waits for the end; all that came over the serial line.
    pub(super) fn boot(&self) -> Result<String> {
        let emulator = emulator(self.target).0;
        let (machine, console) = hardware(self.target);
        let devices = "-nodefaults -display none -monitor none -serial stdio";
        let mut child = Command::new(emulator)
            .args(machine.split(' '))
            // With a thread for each CPU of the guest, one may run an int3 that another has just taken away
            // again to switch a static key: in one boot of forty that killed the kernel.
            .args("-accel tcg,thread=single -smp 2 -m 2048 -no-reboot".split(' '))
            .args(devices.split(' '))
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            // On a busy machine a CPU of the guest may stand still for longer than the watchdog likes.
            .arg("-append")
            .arg(format!(
                "console={console} panic=-1 oops=panic nowatchdog quiet"
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {emulator}"))?;
        let mut serial = child.stdout.take().context("no pipe to the guest")?;
        let (sender, console) = mpsc::channel();
        thread::spawn(move || {
            let mut text = Vec::new();
            let read = serial.read_to_end(&mut text);
            let sent = sender.send(read.map(|_| text));
            sent.expect("the receiver waits for this one message");
        });
        let (text, late) = match console.recv_timeout(PATIENCE) {
            Ok(text) => (text, false),
            Err(_) => {
                child.kill().context("end the guest")?;
                (console.recv().context("read the console")?, true)
            }
        };
        child.wait().context("wait for the guest")?;
        let text = text.context("read the console")?;
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if late {
            text += &format!(
                "\nKERNEL-CHECK: FAIL no end within {} s\n",
                PATIENCE.as_secs()
            );
        }
        Ok(text)
    }
}
