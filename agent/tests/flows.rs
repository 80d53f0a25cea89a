//! `palisade flows` as a program: how it ends.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

/// An agent that has denied nothing; tells of every request.
fn agent(socket: &PathBuf, asked: Sender<String>) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who asked may be gone.
            drop(answer(stream, &asked));
        }
    });
    Ok(())
}

fn answer(stream: UnixStream, asked: &Sender<String>) -> io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let body = match request.contains("/counts") {
        true => r#"{"newest":0,"lost":0}"#,
        false => "[]",
    };
    // The test may have heard enough.
    drop(asked.send(request));
    let length = body.len();
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn follow(socket: &PathBuf) -> io::Result<Child> {
    Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["flows", "--follow", "--end-with-input", "--socket"])
        .arg(socket)
        .stdin(Stdio::piped())
        .spawn()
}

#[test]
fn who_follows_ends_with_its_input_and_not_before() -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("palisade-flows-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let socket = folder.join("palisade.sock");
    let (asked, requests) = channel();
    agent(&socket, asked)?;
    let mut child = follow(&socket)?;
    // Twice at first, and again and again while it follows.
    for _ in 0..6 {
        requests.recv().expect("a request");
    }
    assert_eq!(child.try_wait()?, None);
    drop(child.stdin.take());
    assert!(child.wait()?.success());
    fs::remove_dir_all(&folder)
}
