//! The configuration as it is written: the plugin's `[plugin.config]` table.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The rules, in the order in which they are asked.
    pub(crate) rules: Vec<Rule>,
    /// What is answered where no rule says anything.
    #[serde(default)]
    pub(crate) otherwise: Otherwise,
}

/// What is answered where no rule says anything.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Otherwise {
    /// No.
    #[default]
    Deny,
    /// Let the next plugin in the chain decide.
    Next,
}

/// What a rule does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Effect {
    /// Lets.
    #[default]
    Allow,
    /// Forbids.
    Deny,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// What it does.
    #[serde(default)]
    pub(crate) effect: Effect,
    /// Only for clients that logged in as one of these; empty is everybody.
    #[serde(default)]
    pub(crate) principals: Vec<String>,
    /// Only for clients whose login gave them all of these.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    /// Where.
    #[serde(default)]
    pub(crate) publish: Vec<Right>,
    /// What.
    #[serde(default)]
    pub(crate) subscribe: Vec<Right>,
}

/// A filter template alone, or with limits.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a filter, or a table with filter, qos_max and retain")]
pub(crate) enum Right {
    /// The template alone.
    Filter(String),
    /// With limits.
    Limited(LimitedRight),
}

/// A filter template with limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitedRight {
    /// The template.
    pub(crate) filter: String,
    /// 0, 1 or 2.
    pub(crate) qos_max: Option<u8>,
    /// Whether messages may be retained; for `publish` only.
    pub(crate) retain: Option<bool>,
}
