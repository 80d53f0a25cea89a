//! Runs in an emulated guest (`cargo xtask kernels`): what is tested of the programs on the machine's own kernel
//! in full is tested in brief on others. Its last line says how it went.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    time::Instant,
};

mod cluster;
mod programs;

fn main() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}", release.trim());
    let begun = Instant::now();
    let checks = || {
        let programs = programs::checks();
        println!("programs: {programs} checks, {:?}", begun.elapsed());
        let cluster = cluster::checks().unwrap_or_else(|error| panic!("{error:?}"));
        println!("cluster: {cluster} checks, {:?}", begun.elapsed());
        programs + cluster
    };
    match panic::catch_unwind(AssertUnwindSafe(checks)) {
        Ok(count) => println!("KERNEL-CHECK: PASS {count} checks"),
        Err(cause) => {
            let text = cause
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| cause.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            // The panic itself has printed all of it.
            let first = text.lines().next().unwrap_or_default();
            println!("KERNEL-CHECK: FAIL {first}");
        }
    }
}
