//! What a scenario changes in the cluster: policies and labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use kube::{
    Error,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{Lane, Stop};
use crate::{
    cluster::{Kind, reason},
    connectivity::{
        scenario::{Policy, Scenario},
        stage::MANAGER,
    },
};

impl Lane<'_> {
    /// Makes these the policies, and no other; flow logs name them by their scenario.
    pub(super) async fn policies(&self, scenario: &str, policies: &[Policy]) -> Result<(), Stop> {
        let places = &self.set.places;
        let mut present = BTreeSet::new();
        for (number, policy) in policies.iter().enumerate() {
            let name = format!("{scenario}-{number}");
            let object = places.policy(&name, policy).map_err(Stop::Skipped)?;
            let object: DynamicObject = serde_json::from_value(object).context("a policy")?;
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let api = self.cluster.objects(Kind::NetworkPolicy, Some(&namespace));
            let parameters = PatchParams::apply(MANAGER).force();
            let applied = api.patch(&name, &parameters, &Patch::Apply(&object)).await;
            applied.map_err(|error| refused("apply a policy", &error))?;
            present.insert((namespace, name));
        }
        for namespace in places.namespaces.values() {
            let api = self.cluster.objects(Kind::NetworkPolicy, Some(namespace));
            let known = api.list(&ListParams::default()).await;
            let known = known.map_err(|error| refused("list policies", &error))?;
            for policy in known.items {
                let name = policy.metadata.name.unwrap_or_default();
                if present.contains(&(namespace.clone(), name.clone())) {
                    continue;
                }
                match api.delete(&name, &DeleteParams::default()).await {
                    Err(Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(refused("delete a policy", &error).into()),
                    Ok(_) => {}
                }
            }
        }
        Ok(())
    }

    pub(super) async fn label(
        &self,
        who: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> anyhow::Result<()> {
        let places = &self.set.places;
        let (api, name) = match who.split_once('/') {
            Some((namespace, pod)) => {
                let namespace = places.namespace(namespace);
                (self.cluster.objects(Kind::Pod, Some(namespace)), pod)
            }
            None => (
                self.cluster.objects(Kind::Namespace, None),
                places.namespace(who),
            ),
        };
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let patched = api.patch(name, &PatchParams::default(), &patch).await;
        patched.map_err(|error| refused("change labels", &error))?;
        Ok(())
    }

    /// As it was before the scenario.
    pub(super) async fn clear(&self, scenario: &Scenario) -> anyhow::Result<()> {
        for (who, labels) in scenario.steps.iter().flat_map(|step| &step.labels) {
            let none = labels.keys().map(|key| (key.clone(), None)).collect();
            self.label(who, &none).await?;
        }
        match self.policies(&scenario.name, &[]).await {
            Err(Stop::Broken(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

pub(super) fn refused(what: &str, error: &Error) -> anyhow::Error {
    anyhow::anyhow!("cannot {what}: {}", reason(error))
}
