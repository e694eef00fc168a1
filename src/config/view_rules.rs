//! `views.rules`: which clients see the cluster how, by what they say of themselves and by where they come in.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::Listen;
use super::file::Views;
use super::text::Ports;

/// A View, and whom it is for: every condition of a rule that is there has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewRule {
    /// Holds for a DRIVER_NAME that contains it, ASCII case ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Holds for clients that send no DRIVER_NAME: gocql before 1.5, Ruby, Xandra, Kong's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unnamed: bool,
    /// Holds for a DRIVER_VERSION that contains it, ASCII case ignored.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Holds for an APPLICATION_NAME that contains it, ASCII case ignored.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    /// Holds for clients of these ports, a part of listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    pub view: ViewName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViewName {
    /// Every node is shown, each by what is advertised for its port.
    NodePorts,
    /// The node behind the dialled port is all there is.
    SingleNode,
}

impl ViewRule {
    /// A rule without conditions.
    pub fn of(view: ViewName) -> Self {
        Self { driver: None, unnamed: false, driver_version: None, application_name: None, ports: None, view }
    }

    /// The texts that a client's have to contain, with the names of their keys.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [
            ("driver", &self.driver),
            ("driver_version", &self.driver_version),
            ("application_name", &self.application_name),
        ];
        texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)))
    }
}

impl Views {
    pub(super) fn check(&self, listen: Listen, mut problem: impl FnMut(String, String)) {
        for (index, rule) in self.rules.iter().enumerate() {
            let key = format!("views.rules[{index}]");
            if *rule == ViewRule::of(rule.view) {
                let what = "has no condition: driver, unnamed, driver_version, application_name or ports; for whomever no rule \
                            is meant there is views.default";
                problem(key.clone(), what.to_owned());
            }
            for (name, _) in rule.texts().filter(|(_, text)| text.is_empty()) {
                let what = "is empty, and would hold for all: set views.default instead, or unnamed for who sends no DRIVER_NAME";
                problem(format!("{key}.{name}"), what.to_owned());
            }
            if rule.unnamed && rule.driver.is_some() {
                problem(format!("{key}.unnamed"), "excludes driver: nobody has a name and none".to_owned());
            }
            if let Some(ports) = rule.ports.filter(|ports| !listen.has(*ports)) {
                problem(format!("{key}.ports"), format!("{ports} is outside listen {listen}"));
            }
        }
    }
}

/// What is a text to YAML, too: a bare 1.10 is 1.1 to whoever keeps a number (`environment`).
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(de::Error::custom(format!("{other} is no text: write it in quotes"))),
    }
}
