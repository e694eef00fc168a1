//! A client that is to be shown the cluster: what is known of it when its connection is established, and which of the user's rules
//! are meant for it.

use crate::config::ViewRule;

/// What a client's STARTUP says, and the port that it came by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newcomer<'a> {
    pub driver_name: Option<&'a str>,
    pub driver_version: Option<&'a str>,
    pub application_name: Option<&'a str>,
    pub port: u16,
}

impl Newcomer<'_> {
    /// Whether every condition of a rule holds. One that is not there does.
    pub fn meets(&self, rule: &ViewRule) -> bool {
        contains(self.driver_name, rule.driver.as_deref())
            && (!rule.unnamed || self.driver_name.is_none())
            && contains(self.driver_version, rule.driver_version.as_deref())
            && contains(self.application_name, rule.application_name.as_deref())
            && rule.ports.is_none_or(|ports| (ports.first..=ports.last).contains(&self.port))
    }
}

/// Whether a text is there and has `part` in it, ASCII case ignored.
fn contains(text: Option<&str>, part: Option<&str>) -> bool {
    let Some(part) = part else { return true };
    text.is_some_and(|text| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ViewName;

    const JAVA: Newcomer<'_> = Newcomer {
        driver_name: Some("Apache Cassandra Java Driver"),
        driver_version: Some("4.19.0-SNAPSHOT"),
        application_name: Some("Shop"),
        port: 9043,
    };
    /// gocql 1.4, Ruby's, Xandra, Kong's.
    const UNNAMED: Newcomer<'_> =
        Newcomer { driver_name: None, driver_version: None, application_name: None, port: 9042 };
    /// gocql without the module's information.
    const EMPTY: Newcomer<'_> = Newcomer { driver_name: Some(""), driver_version: Some(""), ..UNNAMED };

    /// The rule, as it stands in a file, is met by these and by no other.
    #[track_caller]
    fn check(rule: &str, met: [bool; 3]) {
        let rule: ViewRule = serde_saphyr::from_str(&format!("{{{rule}, view: single_node}}")).unwrap();
        assert_eq!([JAVA, UNNAMED, EMPTY].map(|newcomer| newcomer.meets(&rule)), met, "{rule:?}");
    }

    #[test]
    fn texts_are_contained_whatever_their_case() {
        check("driver: java", [true, false, false]);
        check("driver: JAVA DRIVER", [true, false, false]);
        check("driver: javas", [false; 3]);
        check("driver_version: '4.19'", [true, false, false]);
        check("driver_version: snapshot", [true, false, false]);
        check("application_name: shop", [true, false, false]);
        check("application_name: shops", [false; 3]);
    }

    #[test]
    fn who_sends_no_name_is_unnamed_and_who_sends_an_empty_one_is_not() {
        check("unnamed: true", [false, true, false]);
        check("unnamed: false, ports: 9042-9043", [true; 3]);
    }

    #[test]
    fn ports_are_those_that_clients_dial() {
        check("ports: 9043-9050", [true, false, false]);
        check("ports: 9042", [false, true, true]);
        check("ports: 9044-9050", [false; 3]);
    }

    #[test]
    fn all_conditions_of_a_rule_have_to_hold() {
        check("driver: java, driver_version: '4.', application_name: shop, ports: 9043-9043", [true, false, false]);
        for rule in [
            "driver: java, driver_version: '3.'",
            "driver: python, driver_version: '4.'",
            "driver: java, application_name: till",
            "driver: java, ports: 9042-9042",
        ] {
            check(rule, [false; 3]);
        }
        assert!(JAVA.meets(&ViewRule::of(ViewName::NodePorts)));
    }
}
