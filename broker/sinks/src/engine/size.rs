//! What a record takes in memory, by estimate: what the limits of buffers are about.

use std::sync::Arc;

use weirmq_core::record::{Record, Value};

use crate::json::DEPTH_MAX;

/// What a record takes beside its fields, in bytes: its place in the queue, its name, its id.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 192;

/// What a record takes in memory, in bytes, by estimate; `None` when it is nested too deep to be read back.
pub(crate) fn measure(record: &Record) -> Option<usize> {
    Some(RECORD_OVERHEAD_BYTES.saturating_add(fields_bytes(&record.fields, DEPTH_MAX)?))
}

fn fields_bytes(fields: &[(Arc<str>, Value)], depth_left: usize) -> Option<usize> {
    fields.iter().try_fold(0_usize, |sum, (key, value)| {
        let bytes = key.len().saturating_add(value_bytes(value, depth_left)?);
        Some(sum.saturating_add(bytes).saturating_add(size_of::<Arc<str>>()))
    })
}

fn value_bytes(value: &Value, depth_left: usize) -> Option<usize> {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(values) => {
            let depth_left = depth_left.checked_sub(1)?;
            values
                .iter()
                .try_fold(0_usize, |sum, value| Some(sum.saturating_add(value_bytes(value, depth_left)?)))?
        }
        Value::Map(fields) => fields_bytes(fields, depth_left.checked_sub(1)?)?,
    };
    Some(inner.saturating_add(size_of::<Value>()))
}
