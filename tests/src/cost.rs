//! What a process has cost so far.

use std::{fmt, fs};

use anyhow::{Context as _, Result};

/// Memory and time of a process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Memory in use, MiB, now and at most.
    pub resident: u64,
    peak: u64,
    /// Processor time in programs and in the kernel, seconds.
    user: f64,
    system: f64,
}

impl Cost {
    /// Of the process with this id.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let value = value.with_context(|| format!("no {name}"))?;
            let number: u64 = value
                .trim_start_matches(':')
                .trim()
                .trim_end_matches(" kB")
                .parse()?;
            Ok(number / 1024)
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
        let fields: Vec<_> = fields.split(' ').collect();
        // A tick is a hundredth of a second (`USER_HZ`).
        let seconds = |at: usize| -> Result<f64> {
            let ticks: f64 = fields.get(at).context("too few fields")?.parse()?;
            Ok(ticks / 100.0)
        };
        Ok(Self {
            resident: memory("VmRSS")?,
            peak: memory("VmHWM")?,
            user: seconds(11)?,
            system: seconds(12)?,
        })
    }

    /// Processor time since an earlier look, seconds.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> f64 {
        self.user + self.system - earlier.user - earlier.system
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident,
            peak,
            user,
            system,
        } = self;
        write!(
            f,
            "memory {resident} MiB (peak {peak} MiB), processor {user:.1} s user, {system:.1} s system"
        )
    }
}
