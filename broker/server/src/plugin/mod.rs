//! The commands of `weirmq plugin` that need no broker.

pub(crate) mod check;
