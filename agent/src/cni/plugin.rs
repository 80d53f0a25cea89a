//! The plugin as a process. ADD waits for the agent, briefly and bounded; DEL, GC and STATUS never need one: what cannot
//! be removed or said keeps the runtime from going on, and the node from being ready.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::{FlockOperation, flock},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde_json::{Value, json};

use super::{
    Attachment,
    invocation::{Failure, Invocation, OnTimeout},
    message::{self, Answer, Request},
    record::{Record, Records},
};

/// The variable by which a runtime says what is to be done.
pub const COMMAND: &str = "CNI_COMMAND";

/// The newest version whose commands are known here, and all.
const VERSION: &str = "1.1.0";
const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", VERSION];

/// How long the agent may take for what is not waited for.
const BRIEFLY: Duration = Duration::from_millis(300);
/// How soon an agent that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// By how much the agent answers before the plugin gives up, so that it can say why.
const MARGIN: Duration = Duration::from_millis(300);
/// The most that standard input may have, bytes.
const INPUT: u64 = 1 << 20;

/// Does what the runtime says.
#[must_use]
pub fn main(command: &str) -> ExitCode {
    let mut input = Vec::new();
    if let Err(error) = io::stdin().lock().take(INPUT).read_to_end(&mut input) {
        complain(format_args!("standard input: {error}"));
    }
    let told = Invocation::new(|name| std::env::var(name).ok(), &input);
    let (answer, code) = match perform(command, &told) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => (describe(&failure, told.version()), ExitCode::FAILURE),
    };
    if let Err(error) = writeln!(io::stdout(), "{answer}") {
        complain(format_args!("standard output: {error}"));
        return ExitCode::FAILURE;
    }
    code
}

fn perform(command: &str, told: &Invocation) -> Result<Option<Value>, Failure> {
    match command {
        "ADD" => add(told).map(Some),
        "DEL" => {
            del(told);
            Ok(None)
        }
        "CHECK" => check(told).map(|()| None),
        "GC" => {
            gc(told);
            Ok(None)
        }
        "STATUS" => Ok(None),
        "VERSION" => Ok(Some(json!({
            "cniVersion": VERSION,
            "supportedVersions": VERSIONS,
        }))),
        other => Err(Failure::environment(format!(
            "CNI_COMMAND is {other}, which is not known"
        ))),
    }
}

fn describe(failure: &Failure, version: &str) -> Value {
    json!({
        "cniVersion": version,
        "code": failure.code,
        "msg": failure.message,
        "details": failure.details,
    })
}

fn add(told: &Invocation) -> Result<Value, Failure> {
    let result = told.result()?;
    let Some(attachment) = told.attachment()? else {
        return Ok(result);
    };
    let (deadline, on_timeout) = (Instant::now() + told.wait()?, told.on_timeout()?);
    let records = Records::new(told.folder());
    let lock = records
        .lock()
        .map_err(|error| Failure::io(format!("{}: {error}", told.folder().display())))?;
    // Taken alone it says that Palisade is about to be gone from the node, and policy with it.
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
        return Ok(result);
    }
    let mut record = Record {
        attachment,
        unheld: None,
    };
    write(&records, &record)?;
    let Err(reason) = wait(&records, &record.attachment, deadline) else {
        return Ok(result);
    };
    let Attachment { namespace, pod, .. } = &record.attachment;
    if on_timeout == OnTimeout::Allow {
        complain(format_args!(
            "pod {namespace}/{pod} starts before its policies are in force: {reason}"
        ));
        record.unheld = Some(reason);
        write(&records, &record)?;
        return Ok(result);
    }
    let program = std::env::current_exe().unwrap_or_default();
    Err(Failure::again(format!(
        "the policies of pod {namespace}/{pod} are not in force yet: {reason}; if Palisade is gone from this \
         node for good, run `{} uninstall` there",
        program.display()
    )))
}

fn write(records: &Records, record: &Record) -> Result<(), Failure> {
    let container = &record.attachment.container;
    match records.write(record) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure {
            code: 3,
            message: "container does not exist",
            details: format!("{container} was removed meanwhile"),
        }),
        Err(error) => Err(Failure::io(format!(
            "the record of {container} cannot be written: {error}"
        ))),
    }
}

/// Asks until the agent says that the pod's policies are in force. What keeps them from it else.
fn wait(records: &Records, attachment: &Attachment, deadline: Instant) -> Result<(), String> {
    let netns = File::open(&attachment.netns)
        .map_err(|error| format!("{}: {error}", attachment.netns.display()))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.saturating_sub(MARGIN);
        let request = Request::Add {
            attachment: attachment.clone(),
            milliseconds: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        match ask(records, left, &request, Some(netns.as_fd())) {
            Ok(Answer::Ready) => return Ok(()),
            Ok(Answer::Late { reason }) => return Err(reason),
            // It may be about to start, or to be replaced.
            Err(_) if left > PAUSE => thread::sleep(PAUSE),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err("the agent on this node does not answer in time".to_owned());
            }
            Err(error) => return Err(format!("the agent on this node cannot be asked: {error}")),
        }
    }
}

/// What the agent answers.
fn ask(
    records: &Records,
    patience: Duration,
    request: &Request,
    namespace: Option<BorrowedFd<'_>>,
) -> io::Result<Answer> {
    let mut socket = reach(records, patience)?;
    message::send(&mut socket, request, namespace)?;
    message::receive(&socket)
}

/// A connection to the agent, on which nothing takes longer than that.
fn reach(records: &Records, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // None would be without end.
    let patience = Some(patience.max(Duration::from_millis(1)));
    // It bounds the wait for a place in the agent's queue too.
    set_socket_timeout(&socket, Timeout::Send, patience)?;
    set_socket_timeout(&socket, Timeout::Recv, patience)?;
    connect(&socket, &SocketAddrUnix::new(records.socket())?)?;
    Ok(socket.into())
}

fn del(told: &Invocation) {
    match told.container() {
        Ok(container) => bury(&Records::new(told.folder()), container),
        Err(failure) => complain(format_args!("{}", failure.details)),
    }
}

/// Removes what is known of a sandbox, and tells the agent if there is one.
fn bury(records: &Records, container: &str) {
    let buried = records.bury(container);
    let forgotten = records.forget(SystemTime::now());
    if let Err(error) = buried.and(forgotten) {
        complain(format_args!("the record of {container}: {error}"));
    }
    let request = Request::Del {
        container: container.to_owned(),
    };
    // The agent, when there is one again, finds it gone.
    drop(reach(records, BRIEFLY).and_then(|mut socket| message::send(&mut socket, &request, None)));
}

fn gc(told: &Invocation) {
    let records = Records::new(told.folder());
    let (Some(valid), Ok(all)) = (told.valid(), records.all()) else {
        return;
    };
    for record in all {
        let container = &record.attachment.container;
        if !valid.contains(&container.as_str()) {
            bury(&records, container);
        }
    }
}

/// What the agent knows of the pod. Without one policy is in force as it was.
fn check(told: &Invocation) -> Result<(), Failure> {
    told.result()?;
    let request = Request::Check {
        container: told.container()?.to_owned(),
    };
    match ask(&Records::new(told.folder()), BRIEFLY, &request, None) {
        Ok(Answer::Late { reason }) => Err(Failure::again(reason)),
        Ok(Answer::Ready) | Err(_) => Ok(()),
    }
}

/// Says it where the runtime logs it.
fn complain(what: std::fmt::Arguments<'_>) {
    // There is nowhere left to say that standard error is gone.
    drop(writeln!(io::stderr(), "palisade: {what}"));
}
