//! The configuration as it is written: the plugin's `[plugin.config]` table.

use serde::Deserialize;
use serde_json::Value;

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is checked.
    pub(crate) checks: Vec<Check>,
}

/// One schema and where it holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// The filters of the topics whose payloads it describes.
    pub(crate) topics: Vec<String>,
    /// The schema as a table.
    pub(crate) schema: Option<Value>,
    /// The schema as JSON text.
    pub(crate) schema_json: Option<String>,
    /// Where messages go that do not fit, instead of being dropped; `{topic}` stands for the topic they had.
    pub(crate) redirect: Option<String>,
}
