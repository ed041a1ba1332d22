//! scratch
pub mod abi;
