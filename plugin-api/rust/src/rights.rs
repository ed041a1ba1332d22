//! Rights as the configuration of a login plugin writes them: templates for topic filters, alone or with limits.

use serde::Deserialize;

use crate::Qos;
use crate::topic::Template;

/// Where may be published, as it is written: a template alone (any QoS, retained too), or with limits.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a filter, or a table with filter, qos_max and retain")]
pub enum Publish {
    /// The template alone.
    Filter(String),
    /// With limits.
    Limited(LimitedPublish),
}

/// A template with limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedPublish {
    filter: String,
    #[serde(default = "two")]
    qos_max: u8,
    #[serde(default = "yes")]
    retain: bool,
}

/// What may be subscribed to, as it is written: a template alone (any QoS), or with a limit.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a filter, or a table with filter and qos_max")]
pub enum Subscribe {
    /// The template alone.
    Filter(String),
    /// With a limit.
    Limited(LimitedSubscribe),
}

/// A template with a limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedSubscribe {
    filter: String,
    #[serde(default = "two")]
    qos_max: u8,
}

fn two() -> u8 {
    2
}

fn yes() -> bool {
    true
}

/// A right whose template has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Right {
    /// Which topics or filters, once it is filled in.
    pub template: Template,
    /// Up to which QoS.
    pub qos_max: Qos,
    /// Whether messages may be retained; says nothing for subscriptions.
    pub retain: bool,
}

impl Right {
    /// Checks each of `rights`, which stand under `key`. `names` are the placeholders that there are.
    ///
    /// # Errors
    /// What is wrong with the first that is, and where it stands.
    pub fn publish(key: &str, rights: Vec<Publish>, names: &[&str]) -> Result<Vec<Self>, String> {
        let rights = rights.into_iter().map(|right| match right {
            Publish::Filter(filter) => (filter, 2, true),
            Publish::Limited(right) => (right.filter, right.qos_max, right.retain),
        });
        Self::each(key, rights, names)
    }

    /// As [`Right::publish`], for subscriptions.
    ///
    /// # Errors
    /// What is wrong with the first that is, and where it stands.
    pub fn subscribe(key: &str, rights: Vec<Subscribe>, names: &[&str]) -> Result<Vec<Self>, String> {
        let rights = rights.into_iter().map(|right| match right {
            Subscribe::Filter(filter) => (filter, 2, false),
            Subscribe::Limited(right) => (right.filter, right.qos_max, false),
        });
        Self::each(key, rights, names)
    }

    fn each(
        key: &str,
        rights: impl Iterator<Item = (String, u8, bool)>,
        names: &[&str],
    ) -> Result<Vec<Self>, String> {
        let parse = |(filter, number, retain): (String, u8, bool)| {
            let qos_max = qos_max(number)?;
            Ok(Self { template: Template::parse(&filter, names)?, qos_max, retain })
        };
        rights
            .enumerate()
            .map(|(index, right)| parse(right).map_err(|error: String| format!("{key}[{index}]: {error}")))
            .collect()
    }
}

/// The QoS that a configuration writes as a number.
///
/// # Errors
/// It is none.
pub fn qos_max(number: u8) -> Result<Qos, String> {
    match number {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        other => Err(format!("qos_max is 0, 1 or 2, not {other}")),
    }
}
