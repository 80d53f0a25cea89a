//! One boot under emulation.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::debian::Kernel;

/// What a guest may take: a boot is seconds, the checks some minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Boots and waits for the end; all that came over the serial line.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path) -> Result<String> {
    // The emulator's cmpxchg16b leaves garbage in EFLAGS, which kills kernels whose allocator
    // uses it (6.5 and later) and can spoil a result; without the feature they take a lock.
    let machine = "-accel tcg,thread=multi -cpu Nehalem,-cx16 -smp 2 -m 2048 -no-reboot";
    let devices = "-nodefaults -display none -monitor none -serial stdio";
    let mut child = Command::new("qemu-system-x86_64")
        .args(machine.split(' '))
        .args(devices.split(' '))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 oops=panic quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run qemu-system-x86_64")?;
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
