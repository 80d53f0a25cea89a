//! The agent's end of the plugin's socket.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_dataplane::netlink::Socket as Netlink;
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    Attachment,
    message::{Answer, Incoming, Request},
    record::Records,
};
use crate::{
    api::server::Socket,
    engine::{self, Event, holds::Arrival},
};

/// How long a plugin may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long ADDs that wait may take to learn that they are in vain.
const LEAVE: Duration = Duration::from_secs(1);
/// How long to wait after a connection could not be accepted: there may be too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether pods are held at present. While a runtime's folder is written, none may wait: the runtime reads its lists anew
/// and lets nothing start before every waiting ADD has come back.
#[derive(Clone, Default)]
pub struct Gate(Arc<Bars>);

#[derive(Default)]
struct Bars {
    closed: watch::Sender<bool>,
    /// Each ADD that waits has one.
    token: Arc<()>,
}

impl Gate {
    /// Fails what waits and what comes, for as long as the work takes.
    pub(super) fn while_closed<T>(&self, work: impl FnOnce() -> T) -> T {
        let Bars { closed, token } = &*self.0;
        closed.send_replace(true);
        let end = Instant::now() + LEAVE;
        while Arc::strong_count(token) > 1 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let done = work();
        closed.send_replace(false);
        done
    }
}

/// Who answers plugins.
#[derive(Clone)]
pub struct Server {
    records: Records,
    engine: engine::Sender,
    gate: Gate,
}

impl Server {
    /// One whose socket and records are in that folder.
    #[must_use]
    pub fn new(records: Records, engine: engine::Sender, gate: Gate) -> Self {
        Self {
            records,
            engine,
            gate,
        }
    }

    /// Listens.
    ///
    /// # Errors
    ///
    /// The folder or the socket cannot be made.
    pub fn listen(&self) -> io::Result<UnixListener> {
        self.records.make()?;
        Ok(Socket::bind(&self.records.socket())?.into_listener())
    }

    /// Serves until the process ends.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = server.answer(stream).await {
                            tracing::debug!(%error, "the network plugin could not be answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the network plugin cannot be heard");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let (request, namespace) = timeout(PATIENCE, read(&stream)).await??;
        let answer = match request {
            Request::Add {
                attachment,
                milliseconds,
            } => {
                let deadline = Instant::now() + Duration::from_millis(milliseconds);
                self.add(attachment, namespace, deadline).await
            }
            Request::Del { container } => {
                self.engine.send(Event::Detach(container));
                None
            }
            Request::Check { container } => {
                let (reply, answer) = oneshot::channel();
                self.engine.send(Event::Check(container, reply));
                answer.await.ok()
            }
        };
        // Of an engine that has ended the plugin hears nothing, and asks the next one.
        if let Some(answer) = answer {
            let answer = match answer {
                Ok(()) => Answer::Ready,
                Err(reason) => Answer::Late { reason },
            };
            stream.write_all(&serde_json::to_vec(&answer)?).await?;
        }
        Ok(())
    }

    async fn add(
        &self,
        attachment: Attachment,
        namespace: Option<OwnedFd>,
        deadline: Instant,
    ) -> Option<Result<(), String>> {
        let _waiting = self.gate.0.token.clone();
        let mut closed = self.gate.0.closed.subscribe();
        if self.records.is_gone(&attachment.container) {
            return Some(Err("its sandbox was removed meanwhile".to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        let held = async {
            let namespace = match namespace {
                None => None,
                Some(file) => Some(number(file).await?),
            };
            let arrival = Arrival {
                attachment,
                namespace,
                deadline,
            };
            self.engine.send(Event::Attach(Box::new(arrival), reply));
            Ok(answer.await.ok())
        };
        tokio::select! {
            held = held => held.unwrap_or_else(|reason| Some(Err(reason))),
            _ = closed.wait_for(|closed| *closed) => {
                Some(Err("the runtime's list of plugins is being written".to_owned()))
            }
        }
    }
}

async fn read(stream: &UnixStream) -> io::Result<(Request, Option<OwnedFd>)> {
    let mut incoming = Incoming::default();
    while !stream
        .async_io(Interest::READABLE, || incoming.read(stream))
        .await?
    {}
    incoming.finish()
}

/// The number by which the node knows a network namespace. The kernel may take its time.
async fn number(file: OwnedFd) -> Result<i32, String> {
    let asked = tokio::task::spawn_blocking(move || Netlink::open()?.namespace_id(file)).await;
    match asked {
        Ok(Ok(number)) => Ok(number),
        Ok(Err(error)) => Err(format!("its network namespace: {error}")),
        Err(error) => Err(format!("its network namespace: {error}")),
    }
}
