//! The ledger in a ConfigMap of the gateway's own namespace. Written by replacing the object that was read, on condition of its
//! `resourceVersion`
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>); what else is in the object is kept.
//!
//! A ConfigMap without the key is an empty ledger, so that it may be made beforehand and the Role need not allow `create`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::time::timeout;

use super::ledger::agreement::{Store, StoreError};
use super::ledger::{Ledger, LedgerError};
use super::watch::ApiError;

/// For each request: the client itself waits without end.
const DEADLINE: Duration = Duration::from_secs(10);
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "cqlgate");

impl Ledger {
    /// The ledger in a ConfigMap, such as a watch shows it.
    pub fn of(config_map: &ConfigMap) -> Result<Self, LedgerError> {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = format!("{}/{}", part(&config_map.metadata.namespace), part(&config_map.metadata.name));
        Self::parse(&name, config_map.data.as_ref().unwrap_or(&BTreeMap::new()))
    }
}

/// One ConfigMap; it need not exist.
#[derive(Clone)]
pub struct ConfigMapStore {
    api: Api<ConfigMap>,
    namespace: String,
    name: String,
}

impl ConfigMapStore {
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// `config_map` with `ledger` under its key.
    fn with(&self, mut config_map: ConfigMap, ledger: &Ledger) -> Result<ConfigMap, StoreError> {
        let data = ledger.encode(&format!("{}/{}", self.namespace, self.name))?;
        config_map.data.get_or_insert_default().extend(data);
        let (label, value) = MANAGED_BY;
        config_map.metadata.labels.get_or_insert_default().insert(label.to_owned(), value.to_owned());
        Ok(config_map)
    }

    /// The answer to a request of `verb`, or why there is none.
    async fn ask<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        let resource = match verb {
            // No Role can limit it to a name.
            "create" => format!("configmaps in namespace {}", self.namespace),
            _ => format!("configmaps (that named {}) in namespace {}", self.name, self.namespace),
        };
        let error = match timeout(DEADLINE, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            // Another version is there, or somebody else has made the object, or it is there no longer.
            Ok(Err(Error::Api(status)))
                if status.is_conflict()
                    || status.is_already_exists()
                    || (verb == "update" && status.is_not_found()) =>
            {
                return Err(StoreError::Conflict);
            }
            Ok(Err(error)) => ApiError::new(verb, &resource, &error),
            Err(_) => ApiError::Timeout { verb, resource, after: DEADLINE },
        };
        match error {
            ApiError::Forbidden { .. } => Err(StoreError::Forbidden(error.to_string())),
            error => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

impl Store for ConfigMapStore {
    /// The object as it was read.
    type Version = ConfigMap;

    async fn read(&self) -> Result<Option<(Ledger, ConfigMap)>, StoreError> {
        // Without a resourceVersion the answer is the most recent state, not one from a cache.
        let Some(config_map) = self.ask("get", self.api.get_opt(&self.name)).await? else { return Ok(None) };
        Ok(Some((Ledger::of(&config_map)?, config_map)))
    }

    async fn create(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let config_map = self.with(ConfigMap { metadata, ..ConfigMap::default() }, ledger)?;
        self.ask("create", self.api.create(&PostParams::default(), &config_map)).await.map(drop)
    }

    async fn replace(&self, ledger: &Ledger, version: &ConfigMap) -> Result<(), StoreError> {
        if version.metadata.resource_version.as_ref().is_none_or(String::is_empty) {
            // Such a write would be unconditional.
            let text = format!("ConfigMap {}/{} was read without a resourceVersion", self.namespace, self.name);
            return Err(StoreError::Unavailable(text));
        }
        let config_map = self.with(version.clone(), ledger)?;
        self.ask("update", self.api.replace(&self.name, &PostParams::default(), &config_map)).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
