//! A cluster as its administrator reaches it: by a kubeconfig, from anywhere.
//!
//! What runs there is reached through the API server alone, as `kubectl exec` does: nothing listens for it on any node.

use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};

use crate::source::kube::exec_client;

pub mod agents;
pub mod exec;
pub mod status;

/// Flags of every command that reaches a whole cluster.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Access {
    /// How to reach the API server. Without it the variable KUBECONFIG says so, or ~/.kube/config, or the pod's
    /// ServiceAccount.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig, other than its current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// Reads how to reach it; nothing is asked yet.
    ///
    /// # Errors
    ///
    /// There is no such file or context, or it cannot be used.
    pub async fn connect(access: &Access) -> anyhow::Result<Self> {
        let config = configuration(access)
            .await
            .context("while looking for the API server")?;
        let client = exec_client(config).context("while preparing for the API server")?;
        Ok(Self { client })
    }

    /// Objects of a kind: those of a namespace, or of all.
    #[must_use]
    pub fn objects(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, name) = kind.group_and_name();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", name));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The pods of a namespace, in which programs can be run.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The kinds that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kind of that name")]
pub enum Kind {
    DaemonSet,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Service,
}

impl Kind {
    const fn group_and_name(self) -> (&'static str, &'static str) {
        match self {
            Self::DaemonSet => ("apps", "DaemonSet"),
            Self::EndpointSlice => ("discovery.k8s.io", "EndpointSlice"),
            Self::Namespace => ("", "Namespace"),
            Self::NetworkPolicy => ("networking.k8s.io", "NetworkPolicy"),
            Self::Node => ("", "Node"),
            Self::Pod => ("", "Pod"),
            Self::Service => ("", "Service"),
        }
    }
}

/// Why the API server did not do it, in its own words.
#[must_use]
pub fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

async fn configuration(access: &Access) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: access.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &access.kubeconfig {
        let file = Kubeconfig::read_from(path)?;
        return Ok(Config::from_custom_kubeconfig(file, &options).await?);
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        Err(error) if access.context.is_some() => Err(error.into()),
        Err(error) => Config::incluster()
            .with_context(|| format!("there is no kubeconfig ({error}), and this is no pod")),
    }
}
