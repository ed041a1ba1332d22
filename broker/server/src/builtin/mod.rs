//! Hooks that need no plugin. They fill the seam that plugins fill and stand in the same chains.
//!
//! - [`Anonymous`] lets clients in that do not say who they are.
//! - [`Absent`] stands in the place of a plugin that could not be loaded.
//!
//! # Rights without a hook
//! There is no built-in `authorize` hook, because two rules need none. A lease that carries rights is the whole
//! answer: the broker checks them by itself and asks nobody. A lease without rights leaves every question to the
//! authorize chain, and a chain that is empty, or in which all answer `next`, denies. So a plugin that lets
//! clients in without giving them rights needs a hook that serves `authorize`, or they may do nothing.

mod absent;
mod anonymous;

pub use absent::Absent;
pub use anonymous::{Anonymous, Names};
