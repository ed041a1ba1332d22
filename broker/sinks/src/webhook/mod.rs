//! HTTP POST requests: one per record, its body the record's fields as a JSON object.
//!
//! # Requests
//! `Content-Type: application/json` (a configured header may say otherwise), the configured headers, and
//! `Idempotency-Key`: it stays the same through every repetition of a record, also after a restart, so that a
//! receiver can tell what it has seen. Redirects are not followed and no proxy of the environment is used: records
//! go where the configuration says.
//!
//! # Answers
//! | answer | what becomes of the record |
//! |---|---|
//! | 2xx | written |
//! | 408, 425, 429, 5xx; no answer in time; no connection | tried again, not before `Retry-After` where that is said |
//! | 3xx | tried again: the address is at fault, and the record waits until it is put right |
//! | any other 4xx | a dead letter, with the beginning of the answer as the reason |

mod config;
mod retry_after;
mod sink;
#[cfg(test)]
mod tests;

pub use config::WebhookConfig;
