//! The flow log: a JSON object a line, on standard output or in a file. Writing never holds up whoever tells of flows: what
//! the writer cannot keep up with is counted and left out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde::Serialize;

use crate::{api::proto::FlowLine, config::FlowLog};

/// Names the keys and their meaning; moves if a key is renamed or means something else.
const SCHEMA: &str = "palisade.flow/v1";
/// Lines that may wait.
const WAITING: usize = 4096;

/// Where lines are handed in.
#[derive(Clone, Debug)]
pub struct Sink {
    level: FlowLog,
    node: Arc<str>,
    lines: mpsc::SyncSender<String>,
    refused: Arc<AtomicU64>,
}

/// What each line begins with.
#[derive(Serialize)]
struct Line<'a, T> {
    schema: &'a str,
    node: &'a str,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct Lost {
    lost: u64,
}

impl Sink {
    /// A sink, and what comes out of it.
    #[must_use]
    pub fn new(level: FlowLog, node: &str) -> (Self, mpsc::Receiver<String>) {
        let (lines, written) = mpsc::sync_channel(WAITING);
        let sink = Self {
            level,
            node: node.into(),
            lines,
            refused: Arc::default(),
        };
        (sink, written)
    }

    /// Whether flows of this verdict are written.
    #[must_use]
    pub fn wants(&self, verdict: &str) -> bool {
        match self.level {
            FlowLog::Off => false,
            FlowLog::Denied => verdict != "allowed",
            FlowLog::All => true,
        }
    }

    /// Writes a line, if its verdict is wanted.
    pub fn write(&self, line: &FlowLine) {
        if self.wants(&line.flow.verdict) {
            self.put(line, line.packets);
        }
    }

    /// Says how many flows no line tells of.
    pub fn write_lost(&self, lost: u64) {
        self.put(Lost { lost }, lost);
    }

    /// How many flows were in lines for which there was no room, since the last call.
    #[must_use]
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    fn put(&self, of: impl Serialize, packets: u64) {
        let line = Line {
            schema: SCHEMA,
            node: &self.node,
            of,
        };
        let line = serde_json::to_string(&line);
        if line.is_ok_and(|line| self.lines.try_send(line).is_ok()) {
            return;
        }
        self.refused.fetch_add(packets, Ordering::Relaxed);
    }
}

/// Where lines are written.
#[derive(Clone, Debug)]
pub enum Target {
    /// Standard output.
    Output,
    /// A file, which is put aside as `PATH.1` when it is full, that as `PATH.2`, and so on.
    File {
        /// The file.
        path: PathBuf,
        /// When it is full, bytes.
        size: u64,
        /// How many are kept aside.
        kept: u32,
    },
}

/// Writes lines until no more can come. `beat` is called at least as often as `beats`.
///
/// # Errors
///
/// The file cannot be opened. What fails later is logged, and the lines are lost.
pub fn write(
    lines: &mpsc::Receiver<String>,
    target: &Target,
    beats: Duration,
    beat: impl Fn(),
) -> io::Result<()> {
    let mut writer = Writer::open(target)?;
    loop {
        beat();
        match lines.recv_timeout(beats) {
            Ok(line) => {
                if let Err(error) = writer.line(&line) {
                    tracing::warn!(%error, "a line of the flow log is lost");
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

enum Writer<'a> {
    Output,
    File {
        file: File,
        written: u64,
        path: &'a Path,
        size: u64,
        kept: u32,
    },
}

impl<'a> Writer<'a> {
    fn open(target: &'a Target) -> io::Result<Self> {
        Ok(match target {
            Target::Output => Self::Output,
            Target::File { path, size, kept } => {
                let file = append(path)?;
                Self::File {
                    written: file.metadata()?.len(),
                    file,
                    path,
                    size: *size,
                    kept: *kept,
                }
            }
        })
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Output => writeln!(io::stdout(), "{line}"),
            Self::File {
                file,
                written,
                path,
                size,
                kept,
            } => {
                let length = line.len() as u64 + 1;
                if *written > 0 && *written + length > *size {
                    put_aside(path, *kept)?;
                    *file = append(path)?;
                    *written = 0;
                }
                *written += length;
                file.write_all(format!("{line}\n").as_bytes())
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Renames the file and those before it; the oldest goes.
fn put_aside(path: &Path, kept: u32) -> io::Result<()> {
    let aside = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if kept == 0 {
        return fs::remove_file(path);
    }
    for number in (1..kept).rev() {
        match fs::rename(aside(number), aside(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, aside(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("palisade-flow-log-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let path = folder.join("flows.json");
        let target = Target::File {
            path: path.clone(),
            size: 10,
            kept: 2,
        };
        let (sender, lines) = mpsc::channel();
        for line in ["first", "second", "third", "fourth", "no room for this one"] {
            sender.send(line.to_owned()).expect("somebody listens");
        }
        drop(sender);
        write(&lines, &target, Duration::from_secs(1), || {})?;
        let read = |name: &str| fs::read_to_string(folder.join(name));
        assert_eq!(read("flows.json")?, "no room for this one\n");
        assert_eq!(read("flows.json.1")?, "fourth\n");
        assert_eq!(read("flows.json.2")?, "third\n");
        assert!(read("flows.json.3").is_err());
        fs::remove_dir_all(&folder)
    }

    #[test]
    fn what_the_writer_cannot_keep_up_with_is_counted() {
        let (sink, lines) = Sink::new(FlowLog::Denied, "n1");
        for _ in 0..WAITING + 7 {
            sink.write_lost(1);
        }
        assert_eq!(sink.take_refused(), 7);
        assert_eq!(sink.take_refused(), 0);
        assert_eq!(lines.try_iter().count(), WAITING);
    }
}
