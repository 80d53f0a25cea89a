//! The connection to the API server: one, over which everything goes.
//!
//! A watch may be silent for minutes, so silence alone does not tell that a connection is dead. Over HTTP/2 the
//! server is pinged; where something between speaks HTTP/1.1 only, a connection on which nothing arrives for a while
//! is given up (the server itself breaks the silence about once a minute, with bookmarks).

use std::{path::Path, time::Duration};

use ::kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use anyhow::{Context as _, ensure};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::ServiceBuilder;

/// For how long to wait for a connection, its encryption included.
const CONNECT: Duration = Duration::from_secs(10);
/// After how long a silence the server is pinged, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);
/// After how long a silence the connection is given up. More than the server's bookmarks are apart.
const SILENCE: Duration = Duration::from_secs(64);
/// The same where requests become streams, whose ends ping each other once a minute.
const STREAM_SILENCE: Duration = Duration::from_secs(150);

/// How to reach the API server: by that kubeconfig, else the one that the variable KUBECONFIG names, else as a pod of
/// the cluster does.
///
/// # Errors
///
/// None of them is there, or it cannot be read.
pub async fn configuration(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let options = KubeConfigOptions::default();
    if let Some(path) = kubeconfig {
        let file = Kubeconfig::read_from(path)?;
        Ok(Config::from_custom_kubeconfig(file, &options).await?)
    } else if std::env::var_os("KUBECONFIG").is_some() {
        Ok(Config::from_kubeconfig(&options)
            .await
            .context("by KUBECONFIG")?)
    } else {
        Config::incluster()
            .context("there is neither --manifests nor --kubeconfig, and no pod's ServiceAccount")
    }
}

/// How a user reaches the API server: by that kubeconfig, else as kubectl does, by the variable KUBECONFIG, else the
/// file in the home folder, else as a pod of the cluster; by that context of it, or the present one.
///
/// # Errors
///
/// None of them is there, or it cannot be read.
pub async fn user_configuration(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = kubeconfig {
        let file = Kubeconfig::read_from(path)?;
        return Ok(Config::from_custom_kubeconfig(file, &options).await?);
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        Err(error) if context.is_some() || std::env::var_os("KUBECONFIG").is_some() => {
            Err(error.into())
        }
        Err(_) => Config::incluster()
            .context("there is neither --kubeconfig nor a kubeconfig, and no pod's ServiceAccount"),
    }
}

/// What carries requests; clones share the connection.
type Http = legacy::Client<TimeoutConnector<HttpsConnector<HttpConnector>>, Body>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Requests and their answers.
    Requests,
    /// Also requests that become streams of both ends, as those do that run a program in a pod: HTTP/2 has none.
    Streams,
}

/// The connection.
pub(super) struct Connection {
    config: Config,
    http: Http,
}

impl Connection {
    /// One that is made at the first request.
    pub(super) fn new(config: Config, use_as: Use) -> anyhow::Result<Self> {
        ensure!(
            config.proxy_url.is_none(),
            "the kubeconfig wants a proxy, which is not supported"
        );
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut tls = HttpsConnectorBuilder::new()
            .with_tls_config(config.rustls_client_config()?)
            .https_or_http();
        if let Some(name) = &config.tls_server_name {
            let name = name.clone().try_into().context("tls-server-name")?;
            tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let (https, silence) = match use_as {
            Use::Requests => (tls.enable_all_versions().wrap_connector(tcp), SILENCE),
            Use::Streams => (tls.enable_http1().wrap_connector(tcp), STREAM_SILENCE),
        };
        let mut connector = TimeoutConnector::new(https);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_read_timeout(Some(silence));
        connector.set_write_timeout(Some(silence));
        let http = legacy::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Self { config, http })
    }

    /// A client that tells of every request that succeeds.
    pub(super) fn client(
        &self,
        answered: impl Fn() + Clone + Send + 'static,
    ) -> anyhow::Result<Client> {
        let Self { config, http } = self;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_response(move |response: hyper::Response<_>| {
                if response.status().is_success() {
                    answered();
                }
                response
            })
            .map_err(tower::BoxError::from)
            .service(http.clone());
        Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
    }
}
