//! A store backend: all that the broker keeps, in whatever the plugin keeps it in.

use std::ffi::c_void;
use std::fmt;

use crate::abi;
use crate::answer::Answer;
use crate::plugin::{Plugin, with};

/// An ordered map from keys to values that outlives the process. The header says what the broker relies on: read it
/// before you write one.
///
/// The broker makes one of it and calls it on one thread, [`open`](StoreBackend::open) first. What goes wrong ends
/// the keeping of messages until the broker is started again.
pub trait StoreBackend: Plugin {
    /// Opens the store; [`Plugin::create`] must not. Where another process has it open, it is an error.
    ///
    /// # Errors
    /// Why it cannot be opened, for the operator.
    fn open(&mut self) -> Result<(), String>;

    /// What stands under a key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal>;

    /// Makes these changes, all or none, and durable before it returns. No key is in it twice.
    ///
    /// # Errors
    /// Why they were not made, or not for sure.
    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), Refusal>;

    /// Gives the keys that are not less than `from`, in the order of their bytes, with their values: at most
    /// `entries_max`, and at least one where there is one.
    ///
    /// # Errors
    /// Why they cannot be read. Those that were given are not used then.
    fn scan(&mut self, from: &[u8], entries_max: usize, entries: &mut Entries<'_>) -> Result<(), Refusal>;
}

/// A change of one key.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Change<'a>(abi::Change<'a>);

impl<'a> Change<'a> {
    /// Which.
    #[must_use]
    pub fn key(self) -> &'a [u8] {
        shown(self.0.key).unwrap_or_default()
    }

    /// Its new value; `None` removes it.
    #[must_use]
    pub fn value(self) -> Option<&'a [u8]> {
        shown(self.0.value)
    }
}

/// Why a backend did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A disk or a quota is full.
    Full(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Full(reason) | Self::Failed(reason)) = self;
        out.write_str(reason)
    }
}

impl std::error::Error for Refusal {}

/// Where a scan gives what it finds.
pub struct Entries<'a>(Answer<'a>);

impl Entries<'_> {
    /// The next key and its value. Whether another may follow.
    #[must_use]
    pub fn give(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.0.entry(key, value)
    }
}

fn shown<'a>(view: abi::Bytes<'a>) -> Option<&'a [u8]> {
    // SAFETY: the broker has made it, and it lives until the call returns; `'a` ends there.
    unsafe { view.get() }
}

/// From the table to [`StoreBackend::open`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn open<P: StoreBackend>(
    instance: *mut c_void,
    host: *const abi::Host,
    reply: *mut abi::Reply,
) {
    // SAFETY: what the broker shows is there until this returns, and the instance is this call's.
    unsafe {
        let answer = Answer::new(&*host, reply);
        with::<P>(instance, |plugin| match plugin.open() {
            Ok(()) => answer.pass(),
            Err(reason) => answer.refuse(&reason),
        });
    }
}

/// From the table to [`StoreBackend::get`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn get<P: StoreBackend>(
    instance: *mut c_void,
    key: abi::Bytes<'_>,
    host: *const abi::Host,
    reply: *mut abi::Reply,
) {
    // SAFETY: as in `open`.
    unsafe {
        let answer = Answer::new(&*host, reply);
        with::<P>(instance, |plugin| match plugin.get(shown(key).unwrap_or_default()) {
            Ok(value) => answer.value(value.as_deref()),
            Err(refusal) => answer.refuse(&refusal.to_string()),
        });
    }
}

/// From the table to [`StoreBackend::write`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn write<P: StoreBackend>(
    instance: *mut c_void,
    changes: *const abi::Change<'_>,
    count: usize,
    host: *const abi::Host,
    reply: *mut abi::Reply,
) {
    // SAFETY: as in `open`. A `Change` is laid out as the broker's.
    unsafe {
        let answer = Answer::new(&*host, reply);
        let changes = abi::several(changes.cast::<Change<'_>>(), count);
        with::<P>(instance, |plugin| match plugin.write(changes) {
            Ok(()) => answer.pass(),
            Err(Refusal::Full(reason)) => answer.full(&reason),
            Err(Refusal::Failed(reason)) => answer.refuse(&reason),
        });
    }
}

/// From the table to [`StoreBackend::scan`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn scan<P: StoreBackend>(
    instance: *mut c_void,
    from: abi::Bytes<'_>,
    entries_max: usize,
    host: *const abi::Host,
    reply: *mut abi::Reply,
) {
    // SAFETY: as in `open`.
    unsafe {
        let mut entries = Entries(Answer::new(&*host, reply));
        with::<P>(instance, |plugin| {
            if let Err(refusal) = plugin.scan(shown(from).unwrap_or_default(), entries_max, &mut entries) {
                entries.0.refuse(&refusal.to_string());
            }
        });
    }
}

/// Exports a plugin that is a store backend, and nothing else: its type, which is a [`StoreBackend`].
#[macro_export]
macro_rules! export_store_backend {
    ($plugin:ty) => {
        /// The table that the broker looks for.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static weirmq_plugin_v1: $crate::abi::Table = {
            let mut table = $crate::abi::Table::empty(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
            table.create = Some($crate::plugin::create::<$plugin>);
            table.destroy = Some($crate::plugin::destroy::<$plugin>);
            table.backend_open = Some($crate::backend::open::<$plugin>);
            table.backend_get = Some($crate::backend::get::<$plugin>);
            table.backend_write = Some($crate::backend::write::<$plugin>);
            table.backend_scan = Some($crate::backend::scan::<$plugin>);
            table
        };
    };
}
