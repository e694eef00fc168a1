//! The ConfigMaps of namespace `gate`: one of any name, which replicas make and change on condition of its version.

use serde_json::{Value, json};

use super::{FakeApi, Shared, status};

const PATH: &str = "/api/v1/namespaces/gate/configmaps";

impl Shared {
    /// Status and answer; `None` where the path is another one.
    pub(super) fn config_map(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        path.strip_prefix(PATH)?;
        let mut world = self.world.lock().unwrap();
        let before = world.config_map.clone();
        let new: Value = match method {
            "GET" => return Some(before.map_or((404, status(404, "NotFound", "no such ConfigMap")), |of| (200, of))),
            _ => serde_json::from_slice(body).unwrap(),
        };
        let version = |of: &Value| of["metadata"]["resourceVersion"].clone();
        if before.as_ref().map_or(Value::Null, version) != version(&new) {
            return Some((409, status(409, "Conflict", "the object has been modified")));
        }
        world.version += 1;
        let mut new = new;
        new["metadata"]["resourceVersion"] = json!(world.version.to_string());
        new["metadata"]["namespace"] = json!("gate");
        world.config_map = Some(new.clone());
        Some((if method == "POST" { 201 } else { 200 }, new))
    }
}

impl FakeApi {
    /// The ledger as an earlier gateway has left it.
    pub fn hold_ledger(&self, text: &str) {
        let metadata = json!({"name": "cqlgate-ports", "namespace": "gate", "resourceVersion": "1"});
        self.shared.world.lock().unwrap().config_map =
            Some(json!({"metadata": metadata, "data": {"ports.json": text}}));
    }
}
