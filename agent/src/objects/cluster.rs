//! Objects from an API server, listed once.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Objects;
use crate::source::{convert::describe_as, kube};

impl Objects {
    /// Lists all objects that the API server has; it is found as kubectl finds it. Where nodes may not be listed there
    /// are none, and `tell` says so.
    ///
    /// # Errors
    ///
    /// The API server cannot be reached or does not let them be listed.
    pub fn from_cluster(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let config = kube::user_configuration(kubeconfig, context).await;
            let client = kube::client(config.context("while looking for the API server")?)?;
            let mut objects = Self::default();
            let take = &mut |kind, value: &serde_json::Value| {
                objects.take(describe_as(kind, value)?, None);
                Ok(())
            };
            if !kube::list(&client, take).await? {
                tell("nodes may not be listed: a node's address is taken for a stranger's");
            }
            objects.settle();
            Ok(objects)
        })
    }
}
