//! One live instance that is a store backend, and calls into it.

use std::path::Path;

use bytes::Bytes;
use weirmq_core::durable::backend::{BackendError, Change};
use weirmq_core::hook::Failure;
use weirmq_native::abi;

use super::host::HOST;
use super::instance::{Answered, Instance, Version};
use super::reply::{Answer, Reply, unfit};
use crate::backend::SCAN_BYTES;
use crate::config::PluginConfig;
use crate::error::LoadError;

/// The most bytes that one answer may have: more than any record.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// An instance whose store is open.
pub(crate) struct BackendInstance {
    instance: Instance,
    get: abi::BackendGet,
    write: abi::BackendWrite,
    scan: abi::BackendScan,
    name_and_version: String,
}

impl BackendInstance {
    /// Maps the library of `config`, whose content is `bytes`, makes an instance, and has it open its store.
    pub(crate) fn open(
        config: &PluginConfig,
        bytes: &[u8],
        folder: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let version = Version::open(config, bytes, folder)?;
        let plugin = || config.name.clone();
        let abi::Table { backend_open, backend_get, backend_write, backend_scan, .. } = *version.table();
        let (Some(open), Some(get), Some(write), Some(scan)) =
            (backend_open, backend_get, backend_write, backend_scan)
        else {
            return Err(LoadError::NoBackend { plugin: plugin() });
        };
        let instance = version.first(config)?;
        // SAFETY: the table's own function with the instance that it has made, called as the header says.
        let said = answered(|reply| unsafe { open(instance.state, &raw const HOST, reply) });
        let failed = |failure| LoadError::Start { plugin: plugin(), step: "backend_open", failure };
        match said.map_err(failed)? {
            Answer::Pass => {}
            Answer::Refuse(reason) => return Err(LoadError::BackendRefused { plugin: plugin(), reason }),
            other => return unfit(&other).map_err(failed),
        }
        let name_and_version = format!("{} {}", version.name(), version.version());
        Ok(Self { instance, get, write, scan, name_and_version })
    }

    /// What it calls itself.
    pub(crate) fn name_and_version(&self) -> &str {
        &self.name_and_version
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let key = abi::Bytes::of(key);
        // SAFETY: as in `open`.
        let said = answered(|reply| unsafe { (self.get)(self.instance.state, key, &raw const HOST, reply) });
        match said.map_err(failed)? {
            Answer::Value(value) => Ok(value.map(Bytes::from)),
            other => refusal(&other),
        }
    }

    pub(crate) fn write(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        let changes: Vec<abi::Change<'_>> = changes
            .iter()
            .map(|change| abi::Change {
                key: abi::Bytes::of(&change.key),
                value: abi::Bytes::optional(change.value.as_deref()),
            })
            .collect();
        let (first, count) = (changes.as_ptr(), changes.len());
        let said = answered(|reply| {
            // SAFETY: as in `open`; there are `count` changes until it returns.
            unsafe { (self.write)(self.instance.state, first, count, &raw const HOST, reply) }
        });
        match said.map_err(failed)? {
            Answer::Pass => Ok(()),
            other => refusal(&other),
        }
    }

    pub(crate) fn scan(&mut self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let mut reply = Reply::of_scan(ANSWER_BYTES_MAX, max, SCAN_BYTES as usize);
        let (from, to) = (abi::Bytes::of(from), (&raw mut reply).cast());
        // SAFETY: as in `open`.
        unsafe { (self.scan)(self.instance.state, from, max, &raw const HOST, to) };
        match reply.finish().map_err(failed)? {
            Answer::None => Ok(Vec::new()),
            Answer::Entries(entries) => Ok(entries),
            other => refusal(&other),
        }
    }
}

fn answered(call: impl FnOnce(*mut abi::Reply)) -> Answered<Answer> {
    let mut reply = Reply::new(ANSWER_BYTES_MAX);
    call((&raw mut reply).cast());
    reply.finish()
}

fn failed(failure: Failure) -> BackendError {
    BackendError { reason: failure.detail.as_str().into(), is_full: false }
}

/// What an answer that is not the one hoped for says.
fn refusal<T>(answer: &Answer) -> Result<T, BackendError> {
    let (reason, is_full) = match answer {
        Answer::Refuse(reason) => (reason, false),
        Answer::Full(reason) => (reason, true),
        other => return unfit(other).map_err(failed),
    };
    Err(BackendError { reason: reason.as_str().into(), is_full })
}
