//! What plugin and agent say to each other: one JSON document each way on a socket of the node's folder, and with the
//! plugin's the pod's network namespace as an open file, which nobody else could open without more privileges.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::Attachment;

/// The most that a document may have.
const LONGEST: usize = 64 * 1024;

/// What the plugin says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    /// The pod is about to start.
    Add {
        /// The pod.
        attachment: Attachment,
        /// For how long the plugin will wait.
        milliseconds: u64,
    },
    /// The sandbox's interface is about to be removed. Nobody waits for an answer.
    Del {
        /// The sandbox.
        container: String,
    },
    /// Whether the pod's policies are in force.
    Check {
        /// The sandbox.
        container: String,
    },
}

/// What the agent answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// The pod's policies are in force.
    Ready,
    /// They are not, or not yet.
    Late {
        /// Why.
        reason: String,
    },
}

/// Sends what the plugin says, and that it has said all.
pub(super) fn send(
    socket: &mut UnixStream,
    request: &Request,
    namespace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let text = serde_json::to_vec(request)?;
    let files: Vec<_> = namespace.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for a file"));
    }
    let sent = sendmsg(
        &*socket,
        &[IoSlice::new(&text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(&text[sent..])?;
    socket.shutdown(Shutdown::Write)
}

/// What the agent answers.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Answer> {
    let mut text = Vec::new();
    socket.take(LONGEST as u64).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// What the plugin says, as it comes in piece by piece.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    text: Vec<u8>,
    namespace: Option<OwnedFd>,
}

impl Incoming {
    /// Reads a piece. `true` once all is there.
    pub(super) fn read(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut piece = [0; 4096];
        let length = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut piece)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?
        .bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message {
                self.namespace = files.next().or(self.namespace.take());
            }
        }
        self.text.extend_from_slice(&piece[..length]);
        if self.text.len() > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message without end",
            ));
        }
        Ok(length == 0)
    }

    /// What was said.
    pub(super) fn finish(self) -> io::Result<(Request, Option<OwnedFd>)> {
        Ok((serde_json::from_slice(&self.text)?, self.namespace))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt as _, thread};

    use super::*;

    #[test]
    fn a_request_arrives_with_its_file() -> io::Result<()> {
        let (mut plugin, agent) = UnixStream::pair()?;
        let attachment = Attachment {
            container: "one".to_owned(),
            namespace: "x".repeat(20_000),
            pod: "a".to_owned(),
            uid: String::new(),
            addresses: Vec::new(),
            netns: "/run/netns/1".into(),
        };
        let request = || Request::Add {
            attachment: attachment.clone(),
            milliseconds: 7,
        };
        let sent = request();
        let file = File::open("/proc/self/ns/net")?;
        let number = file.metadata()?.ino();
        let sender =
            thread::spawn(move || send(&mut plugin, &sent, Some(file.as_fd())).map(|()| plugin));
        let mut incoming = Incoming::default();
        while !incoming.read(&agent)? {}
        let (received, namespace) = incoming.finish()?;
        assert_eq!(received, request());
        let namespace = File::from(namespace.expect("a file was sent"));
        assert_eq!(namespace.metadata()?.ino(), number);

        let plugin = sender.join().expect("it has not panicked")?;
        (&agent).write_all(&serde_json::to_vec(&Answer::Ready)?)?;
        drop(agent);
        assert_eq!(receive(&plugin)?, Answer::Ready);
        Ok(())
    }

    #[test]
    fn an_agent_that_ends_without_a_word_has_not_answered() -> io::Result<()> {
        let (plugin, agent) = UnixStream::pair()?;
        drop(agent);
        assert!(receive(&plugin).is_err());
        Ok(())
    }
}
