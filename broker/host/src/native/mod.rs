//! Native plugins: shared libraries behind the C interface of `plugin-api/c/weirmq_plugin.h`.
//!
//! The only place of the broker that may have `unsafe` code, each with its reason. The reasons have one thing in
//! common: they hold if the library keeps to the header. One that does not can do anything to the broker, which is
//! why none is loaded unless the configuration says `allow_native = true`. What can be found out without trusting
//! it (what the file is, what it was built for, what it answers) is found out and put into words.
//!
//! **A library is never unloaded.** Its instances are destroyed when another version serves and the last call has
//! ended, but its code stays where it is: a thread, a thread-local destructor or an exit handler that it has left
//! behind would otherwise run into nothing and take the broker with it. What that costs is bounded: the same
//! content is mapped once, and a process maps [`LIBRARIES_MAX`](library::LIBRARIES_MAX) contents at most.
//!
//! # Layout
//! - `inspect`: what a file is, before any of its code runs
//! - `library`: from the file to the table that it exports
//! - `views`: what the broker shows, as C structures
//! - `host`: what the broker offers: the functions that libraries call
//! - `reply`: what a call has answered
//! - `instance`: one live instance, and calls into it
//! - `backend`: the same where it is a store backend

mod backend;
mod host;
mod inspect;
mod instance;
mod library;
mod reply;
mod views;

pub(crate) use backend::BackendInstance;
pub(crate) use inspect::is_library;
pub(crate) use instance::{Instance, Version};

/// The version of the C interface that this host serves.
pub(crate) const ABI_VERSION: &str = "1.1 (C)";
