//! The HTTP server for kubelet and Prometheus.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use super::{
    health::{self, Health},
    metrics::Metrics,
};
use crate::{api::proto::Condition, engine::Summary};

/// Who answers.
#[derive(Clone)]
pub struct Server {
    /// The loops.
    pub health: Health,
    /// The agent's state.
    pub summary: watch::Receiver<Arc<Summary>>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves until the process ends.
    pub async fn serve(self, address: SocketAddr) {
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/healthz", get(livez))
            .route("/metrics", get(metrics))
            .with_state(self);
        listen(address, router).await;
    }
}

/// Serves until the process ends. While the port is another's, as during a rollout, tries again.
pub(crate) async fn listen(address: SocketAddr, router: Router) {
    const RETRY: Duration = Duration::from_secs(2);
    let mut warned = false;
    loop {
        let served = match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "serving health and metrics");
                axum::serve(listener, router.clone()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!(%address, %error, "cannot serve health and metrics, trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn livez(State(server): State<Server>, query: RawQuery) -> impl IntoResponse {
    answer("livez", &server.health.conditions(), query)
}

async fn readyz(State(server): State<Server>, query: RawQuery) -> impl IntoResponse {
    let conditions = server.summary.borrow().conditions.clone();
    answer("readyz", &conditions, query)
}

async fn metrics(State(server): State<Server>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPENMETRICS)], server.metrics.text())
}

/// The answer to a probe.
pub(crate) fn answer(
    check: &str,
    conditions: &[Condition],
    RawQuery(query): RawQuery,
) -> (StatusCode, String) {
    let is_verbose = |part: &str| part == "verbose" || part.starts_with("verbose=");
    let verbose = query.is_some_and(|query| query.split('&').any(is_verbose));
    let (ok, text) = health::report(check, conditions, verbose);
    let code = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text)
}
