//! All objects, once, for whoever does not watch them.

use ::kube::{Api, Client, Error, api::ListParams};
use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    kinds::{Namespaces, Nodes, Pods, Policies, Services},
    partial::{Partial, Watched},
};
use crate::source::Kind;

/// How many objects are asked for at once: as many as kubectl does.
const PAGE: u32 = 500;

/// Hands over all objects of all kinds. Whether nodes were among them: not everybody may see those.
///
/// # Errors
///
/// The API server cannot be reached or refuses, or an object is refused by whoever takes it.
pub async fn list(
    client: &Client,
    take: &mut dyn FnMut(Kind, &Value) -> Result<()>,
) -> Result<bool> {
    each::<Namespaces>(client, take).await?;
    each::<Pods>(client, take).await?;
    each::<Policies>(client, take).await?;
    each::<Services>(client, take).await?;
    match each::<Nodes>(client, take).await {
        Ok(()) => Ok(true),
        Err(error) if is_forbidden(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Api(status)) if status.code == 403)
}

async fn each<W: Watched>(
    client: &Client,
    take: &mut dyn FnMut(Kind, &Value) -> Result<()>,
) -> Result<()> {
    let api = Api::<Partial<W>>::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await;
        let page = page.with_context(|| format!("while listing {} objects", W::KIND.name()))?;
        for object in &page.items {
            take(W::KIND, &object.value)?;
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
