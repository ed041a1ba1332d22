//! What the broker offers: the functions that libraries call.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Instant as Clock, SystemTime, UNIX_EPOCH};

use weirmq_core::hook::Failure;
use weirmq_native::abi;

use super::reply::{Answer, Reply, bad};
use crate::bindings::weirmq::plugin::types;
use crate::imports::{LOG_BYTES_MAX, write_log};

/// The table of these functions.
pub(super) static HOST: abi::Host = abi::Host {
    abi: abi::ABI,
    bytes: size_of::<abi::Host>() as u32,
    log,
    config,
    now_unix_ms,
    monotonic_us,
    allow,
    welcome,
    deny,
    next,
    proceed,
    pass,
    emit,
    rewrite,
    replace,
    skip,
    refuse,
    want,
    value,
    entry,
    full,
};

/// What the broker knows of one plugin: `weirmq_context`.
pub(super) struct Context {
    plugin: Arc<str>,
    /// The values of its configuration as JSON text. They stay where they are for as long as the context does.
    config: BTreeMap<String, String>,
}

impl Context {
    pub(super) fn new(plugin: &str, config: &serde_json::Map<String, serde_json::Value>) -> Self {
        let values = config.iter().map(|(key, value)| (key.clone(), value.to_string()));
        Self { plugin: Arc::from(plugin), config: values.collect() }
    }

    pub(super) const fn as_ptr(&self) -> *const abi::Context {
        std::ptr::from_ref(self).cast()
    }
}

unsafe extern "C" fn log(context: *const abi::Context, level: u8, text: abi::Text<'_>) {
    use crate::bindings::weirmq::plugin::log::Level;
    let level = match level {
        0 => Level::Error,
        1 => Level::Warn,
        2 => Level::Info,
        3 => Level::Debug,
        _ => Level::Trace,
    };
    // SAFETY: the header says that it is the context that `create` was given, before `destroy` has returned.
    let Some(context) = (unsafe { context.cast::<Context>().as_ref() }) else { return };
    let mut text = text;
    text.bytes = text.bytes.min(LOG_BYTES_MAX);
    // SAFETY: the header says that a text has as many bytes as it says; at most those are read.
    let bytes = unsafe { text.get() }.unwrap_or_default();
    write_log(&context.plugin, level, &String::from_utf8_lossy(bytes));
}

unsafe extern "C" fn config(context: *const abi::Context, key: abi::Text<'_>) -> abi::Text<'static> {
    // SAFETY: as in `log`. The caller keeps the text no longer than the context, as the header says.
    let Some(context) = (unsafe { context.cast::<Context>().as_ref() }) else { return abi::Text::ABSENT };
    // SAFETY: the header says that a text has as many bytes as it says.
    let key = unsafe { key.get() }.and_then(|key| std::str::from_utf8(key).ok());
    abi::Text::optional(key.and_then(|key| context.config.get(key)).map(String::as_bytes))
}

unsafe extern "C" fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

unsafe extern "C" fn monotonic_us() -> u64 {
    static ORIGIN: OnceLock<Clock> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Clock::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Puts what `copy` makes into `reply`.
///
/// # Safety
/// `reply` is null, or the reply of the call that is under way on this thread.
unsafe fn answer(reply: *mut abi::Reply, copy: impl FnOnce(&mut Reply) -> Result<Answer, Failure>) {
    // SAFETY: as the caller promises. Nobody else has it while the call is under way.
    if let Some(reply) = unsafe { reply.cast::<Reply>().as_mut() } {
        reply.take(copy);
    }
}

unsafe extern "C" fn allow(reply: *mut abi::Reply) {
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, |_| Ok(Answer::Allow)) }
}

unsafe extern "C" fn welcome(reply: *mut abi::Reply, lease: *const abi::Lease<'_>, data: abi::Bytes<'_>) {
    let copy = |reply: &mut Reply| {
        // SAFETY: the header says that it is a lease, if not null.
        let lease = unsafe { lease.as_ref() }.ok_or_else(|| bad("its lease is a null pointer"))?;
        // SAFETY: the header says what is in a lease.
        let lease = unsafe { reply.lease(lease) }?;
        // SAFETY: the header says that there are as many bytes as it says.
        Ok(Answer::Welcome(lease, unsafe { reply.bytes(data) }?))
    };
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn deny(reply: *mut abi::Reply, reason_code: u8, reason: abi::Text<'_>) {
    let copy = |reply: &mut Reply| {
        // SAFETY: the header says that a text has as many bytes as it says.
        let reason = unsafe { reply.optional_text("reason", reason) }?.unwrap_or_default();
        Ok(Answer::Deny(types::Denial { reason_code, reason }))
    };
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn next(reply: *mut abi::Reply) {
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, |_| Ok(Answer::Next)) }
}

unsafe extern "C" fn proceed(reply: *mut abi::Reply, data: abi::Bytes<'_>) {
    // SAFETY: the header says that there are as many bytes as it says.
    let copy = |reply: &mut Reply| Ok(Answer::Proceed(unsafe { reply.bytes(data) }?));
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn pass(reply: *mut abi::Reply) {
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, |_| Ok(Answer::Pass)) }
}

unsafe extern "C" fn emit(reply: *mut abi::Reply, draft: *const abi::Draft<'_>) {
    let copy = |reply: &mut Reply| {
        // SAFETY: the header says that it is a draft, if not null.
        let draft = unsafe { draft.as_ref() }.ok_or_else(|| bad("its draft is a null pointer"))?;
        // SAFETY: the header says what is in a draft.
        Ok(Answer::Emit(vec![unsafe { reply.draft(draft) }?]))
    };
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn rewrite(reply: *mut abi::Reply, filter: abi::Text<'_>) {
    // SAFETY: the header says that a text has as many bytes as it says.
    let copy = |reply: &mut Reply| Ok(Answer::Rewrite(unsafe { reply.text("filter", filter) }?));
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn replace(reply: *mut abi::Reply, payload: abi::Bytes<'_>) {
    // SAFETY: the header says that there are as many bytes as it says.
    let copy = |reply: &mut Reply| Ok(Answer::Replace(unsafe { reply.bytes(payload) }?.unwrap_or_default()));
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn skip(reply: *mut abi::Reply) {
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, |_| Ok(Answer::Skip)) }
}

unsafe extern "C" fn refuse(reply: *mut abi::Reply, reason: abi::Text<'_>) {
    let copy = |reply: &mut Reply| {
        // SAFETY: the header says that a text has as many bytes as it says.
        let reason = unsafe { reply.optional_text("reason", reason) }?;
        Ok(Answer::Refuse(reason.unwrap_or_else(|| "it gives no reason".to_owned())))
    };
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn want(reply: *mut abi::Reply, filter: abi::Text<'_>) {
    // SAFETY: the header says that a text has as many bytes as it says.
    let copy = |reply: &mut Reply| Ok(Answer::Want(vec![unsafe { reply.text("filter", filter) }?]));
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn value(reply: *mut abi::Reply, value: abi::Bytes<'_>) {
    // SAFETY: the header says that there are as many bytes as it says.
    let copy = |reply: &mut Reply| Ok(Answer::Value(unsafe { reply.bytes(value) }?));
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}

unsafe extern "C" fn entry(reply: *mut abi::Reply, key: abi::Bytes<'_>, value: abi::Bytes<'_>) -> u8 {
    // SAFETY: the header says whose reply it is. Nobody else has it while the call is under way.
    let Some(reply) = (unsafe { reply.cast::<Reply>().as_mut() }) else { return 0 };
    // SAFETY: the header says that there are as many bytes as it says.
    reply.take(|reply| unsafe { reply.entry(key, value) });
    reply.wants_entries().into()
}

unsafe extern "C" fn full(reply: *mut abi::Reply, reason: abi::Text<'_>) {
    let copy = |reply: &mut Reply| {
        // SAFETY: the header says that a text has as many bytes as it says.
        let reason = unsafe { reply.optional_text("reason", reason) }?;
        Ok(Answer::Full(reason.unwrap_or_else(|| "it gives no reason".to_owned())))
    };
    // SAFETY: the header says whose reply it is.
    unsafe { answer(reply, copy) }
}
