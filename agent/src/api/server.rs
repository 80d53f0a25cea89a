//! The server on the unix socket.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, sync::oneshot};

use super::proto::{Failure, FlowCounts, Pause, Status};
use crate::{
    engine::{self, Event, Lost},
    explain::Query as Question,
    telemetry::packets::Reader,
};

/// Who answers.
#[derive(Clone)]
pub struct Server {
    /// Who knows.
    pub engine: engine::Sender,
    /// Of how many packets no flow tells.
    pub lost: Lost,
    /// What the kernel knows of pods.
    pub packets: Reader,
}

/// The socket; removed with its owner.
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Listens at the path, in place of whatever is left there of a predecessor.
    ///
    /// # Errors
    ///
    /// The folder or the socket cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Made aside, closed to others, and only then put in place: in one step, for those who connect.
        let aside = path.with_extension(std::process::id().to_string());
        if let Err(error) = fs::remove_file(&aside)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(&aside)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&aside, path)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }

    /// What accepts connections.
    #[must_use]
    pub fn into_listener(self) -> UnixListener {
        self.listener
    }
}

impl Server {
    /// Serves until the process ends.
    ///
    /// # Errors
    ///
    /// Connections can be accepted no more.
    pub async fn serve(self, socket: Socket) -> io::Result<()> {
        tracing::info!(socket = %socket.path.display(), "serving the API");
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/pods", get(pods))
            .route("/v1/policies", get(policies))
            .route("/v1/explain", get(explain))
            .route("/v1/flows", get(flows))
            .route("/v1/flows/counts", get(counts))
            .route("/v1/inventory", get(inventory))
            .route("/v1/pause", post(pause))
            .fallback(missing)
            .with_state(self);
        axum::serve(socket.listener, router).await
    }

    /// Asks the engine; `None` once it has ended.
    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.engine.send(event(reply));
        answer.await.ok()
    }
}

async fn status(State(server): State<Server>) -> Response {
    let status = server.ask(Event::Status).await;
    status.map_or_else(gone, |status| {
        let events_lost = (server.lost)();
        Json(Status {
            events_lost,
            ..status
        })
        .into_response()
    })
}

/// The query of `/v1/pods`.
#[derive(Debug, Deserialize)]
struct Wanted {
    /// Whether live flows are counted, too.
    #[serde(default)]
    flows: bool,
}

async fn pods(State(server): State<Server>, Query(Wanted { flows }): Query<Wanted>) -> Response {
    let Some(pods) = server.ask(Event::Pods).await else {
        return gone();
    };
    aside(move || server.packets.pods(pods, flows)).await
}

async fn policies(State(server): State<Server>) -> Response {
    match server.ask(Event::Policies).await {
        Some(facts) => aside(move || Ok(facts.policies())).await,
        None => gone(),
    }
}

/// Answers with what takes long to find out, on a thread of its own.
async fn aside<T: Serialize + Send + 'static>(
    task: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(task).await;
    match done.unwrap_or_else(|error| Err(error.into())) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

/// What else the query of `/v1/explain` says.
#[derive(Debug, Deserialize)]
struct Depth {
    /// Whether the maps are read, too.
    #[serde(default)]
    live: bool,
}

async fn explain(
    State(server): State<Server>,
    Query(question): Query<Question>,
    Query(Depth { live }): Query<Depth>,
) -> Response {
    let event = if live { Event::Look } else { Event::Explain };
    match server.ask(|reply| event(question, reply)).await {
        Some(Ok(explanation)) => Json(explanation).into_response(),
        Some(Err(failure)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(failure)).into_response(),
        None => gone(),
    }
}

/// The query of `/v1/flows`.
#[derive(Debug, Deserialize)]
struct Last {
    /// How many at most.
    #[serde(default = "some")]
    last: usize,
    /// Only those whose number is higher.
    #[serde(default)]
    after: u64,
    /// Whether allowed flows are to be told of, too, for a while from now on.
    #[serde(default)]
    allowed: bool,
}

const fn some() -> usize {
    20
}

async fn flows(State(server): State<Server>, Query(asked): Query<Last>) -> Response {
    let Last {
        last,
        after,
        allowed,
    } = asked;
    let page = server.ask(|reply| Event::Page {
        last,
        after,
        allowed,
        reply,
    });
    page.await
        .map_or_else(gone, |page| Json(page.flows).into_response())
}

async fn counts(State(server): State<Server>) -> Response {
    let page = server.ask(|reply| Event::Page {
        last: 0,
        after: 0,
        allowed: false,
        reply,
    });
    page.await.map_or_else(gone, |page| {
        let (newest, lost) = (page.newest, (server.lost)());
        Json(FlowCounts { newest, lost }).into_response()
    })
}

async fn inventory(State(server): State<Server>) -> Response {
    let inventory = server.ask(Event::Inventory).await;
    inventory.map_or_else(gone, |inventory| Json(inventory).into_response())
}

/// The query of `/v1/pause`.
#[derive(Debug, Deserialize)]
struct Time {
    /// For how long; 0 ends a pause.
    seconds: u64,
}

async fn pause(State(server): State<Server>, Query(Time { seconds }): Query<Time>) -> Response {
    let time = Duration::from_secs(seconds);
    match server.ask(|reply| Event::Pause(time, reply)).await {
        Some(Ok(until)) => Json(Pause { until }).into_response(),
        Some(Err(failure)) => (StatusCode::INTERNAL_SERVER_ERROR, Json(failure)).into_response(),
        None => gone(),
    }
}

fn gone() -> Response {
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "the agent is shutting down",
    )
}

async fn missing() -> Response {
    failure(StatusCode::NOT_FOUND, "no such path")
}

fn failure(code: StatusCode, error: &str) -> Response {
    let error = error.to_owned();
    (code, Json(Failure { error })).into_response()
}
