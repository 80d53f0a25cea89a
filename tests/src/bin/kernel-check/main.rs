//! Runs in an emulated guest (`cargo xtask kernels`): what is tested of the programs on the machine's own kernel
//! in full is tested in brief on others. Its arguments say what: `programs`, `cluster`. Its last line says how
//! it went.

use std::{
    env, fs,
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
        let mut count = 0;
        for what in env::args().skip(1) {
            count += match what.as_str() {
                "programs" => programs::checks(),
                "cluster" => cluster::checks().unwrap_or_else(|error| panic!("{error:?}")),
                other => panic!("nothing to check is called {other}"),
            };
            println!("{what}: checked after {:?}", begun.elapsed());
        }
        assert!(count > 0, "nothing is checked");
        count
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
