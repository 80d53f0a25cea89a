//! Asks an agent over its socket.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::proto::Failure;

/// How long the agent may take: it answers between two batches of writes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The agent has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("cannot ask the agent at {path}: {reason}")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why.
        reason: String,
    },
    /// The agent says why.
    #[error("{0}")]
    Refused(String),
    /// It answers in other words than these.
    #[error("the agent's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Gets a path and its query.
///
/// # Errors
///
/// Nobody answers at the socket, or not with a `T`.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ClientError> {
    ask(socket, Method::GET, path)
}

/// Posts a path and its query.
///
/// # Errors
///
/// As [`get`].
pub fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ClientError> {
    ask(socket, Method::POST, path)
}

fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T, ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable {
        path: socket.display().to_string(),
        reason,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let exchange = async { tokio::time::timeout(TIMEOUT, exchange(socket, method, path)).await };
    let (status, body) = runtime
        .block_on(exchange)
        .map_err(|_elapsed| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    Err(ClientError::Refused(
        match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => failure.error,
            Err(_) => format!("the agent answers {status}"),
        },
    ))
}

async fn exchange(socket: &Path, method: Method, path: &str) -> io::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Empty::<Bytes>::new());
    let response = sender
        .send_request(request.map_err(io::Error::other)?)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    connection.abort();
    Ok((status, body))
}
