//! A lab leaves nothing behind, however it ends.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use palisade_tests::{
    lab::{Cni, Lab, Plan},
    skip_without_root,
};

type Result = std::result::Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

/// A node and a pod.
fn lab() -> anyhow::Result<Lab> {
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    lab.add_pod("x/a", "node1")?;
    Ok(lab)
}

/// Waits for what the kernel does in its own time.
fn until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Names of what labs leave in the file system.
fn traces() -> Vec<String> {
    let folders = fs::read_dir("/run").into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path().display().to_string());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().map(str::to_owned);
    folders
        .chain(mounts)
        .filter(|line| line.contains("palisade-lab-"))
        .collect()
}

/// Those of one lab.
fn of_lab(id: &str) -> Vec<String> {
    traces()
        .into_iter()
        .filter(|line| line.contains(id))
        .collect()
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let lab = lab()?;
    let id = lab.path().display().to_string();
    let mut sleeper = lab.node("node1").endpoint.namespace.command("sleep");
    sleeper.arg("60");
    let process = lab.start(sleeper, "sleep.log")?;
    let pid = process.pid();
    assert!(!of_lab(&id).is_empty());
    let panic = thread::spawn(move || {
        let _held = (process, lab);
        panic!("a test that fails");
    });
    assert!(panic.join().is_err());
    assert_eq!(of_lab(&id), Vec::<String>::new());
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    Ok(())
}

/// Not a test of its own: makes a lab and waits to be killed.
#[test]
#[ignore = "run by the next one"]
fn a_lab_that_waits() -> Result {
    let lab = lab()?;
    let mut sleeper = lab.node("node1").endpoint.namespace.command("sleep");
    sleeper.arg("60");
    let process = lab.start(sleeper, "sleep.log")?;
    println!("\nready {} {}", lab.path().display(), process.pid());
    thread::sleep(60 * SECOND);
    Ok(())
}

#[test]
fn a_killed_lab_leaves_nothing() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let mut killed = Command::new(env::current_exe()?)
        .args(["--ignored", "--exact", "--nocapture", "a_lab_that_waits"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(killed.stdout.take().ok_or("no output")?);
    let ready = output
        .lines()
        .map_while(std::result::Result::ok)
        .find_map(|line| {
            let (path, pid) = line.strip_prefix("ready ")?.split_once(' ')?;
            Some((path.to_owned(), pid.to_owned()))
        });
    let (path, pid) = ready.ok_or("the lab was not made")?;
    assert!(!of_lab(&path).is_empty());
    killed.kill()?;
    killed.wait()?;
    assert!(
        until(5 * SECOND, || of_lab(&path).is_empty()),
        "{:?}",
        of_lab(&path)
    );
    assert!(until(SECOND, || !Path::new("/proc")
        .join(&pid)
        .join("exe")
        .exists()));
    Ok(())
}

#[test]
fn what_neither_process_nor_guard_removed_is_swept() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    // A process id that no process can have.
    let folder = Path::new("/run/palisade-lab-4194999-0");
    fs::create_dir_all(folder.join("netns"))?;
    fs::write(folder.join("lock"), "")?;
    fs::write(folder.join("netns/x_a"), "")?;
    let lab = lab()?;
    Lab::sweep()?;
    assert!(!folder.exists());
    assert!(
        lab.path().exists(),
        "a lab that is alive is nobody's leftover"
    );
    Ok(())
}
