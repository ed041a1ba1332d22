//! What a call has answered.

use bytes::Bytes;
use weirmq_core::hook::{Failure, FailureKind};
use weirmq_native::abi;

use crate::bindings::weirmq::plugin::types;

/// The most things that one list of an answer may have; what they take in all is bounded by `output_bytes_max`.
const LIST_MAX: usize = 65_536;

/// What a library's call has answered so far. Everything in it is a copy.
pub(super) struct Reply {
    answer: Answer,
    fault: Option<Failure>,
    bytes_left: usize,
    /// How many more entries are wanted, and how many more bytes in them.
    entries_left: usize,
    entry_bytes_left: usize,
}

/// The words that a library can answer with.
#[derive(Debug)]
pub(super) enum Answer {
    None,
    Allow,
    Welcome(types::Lease, Option<Vec<u8>>),
    Deny(types::Denial),
    Next,
    Proceed(Option<Vec<u8>>),
    Pass,
    Emit(Vec<types::Draft>),
    Rewrite(String),
    Replace(Vec<u8>),
    Skip,
    Refuse(String),
    Want(Vec<String>),
    Value(Option<Vec<u8>>),
    Entries(Vec<(Bytes, Bytes)>),
    Full(String),
}

impl Answer {
    /// The function that gives it.
    const fn word(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Allow => "allow",
            Self::Welcome(..) => "welcome",
            Self::Deny(_) => "deny",
            Self::Next => "next",
            Self::Proceed(_) => "proceed",
            Self::Pass => "pass",
            Self::Emit(_) => "emit",
            Self::Rewrite(_) => "rewrite",
            Self::Replace(_) => "replace",
            Self::Skip => "skip",
            Self::Refuse(_) => "refuse",
            Self::Want(_) => "want",
            Self::Value(_) => "value",
            Self::Entries(_) => "entry",
            Self::Full(_) => "full",
        }
    }
}

type Copied<T> = Result<T, Failure>;

impl Reply {
    /// Nothing yet; an answer may take `bytes_max`.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            answer: Answer::None,
            fault: None,
            bytes_left: bytes_max,
            entries_left: 0,
            entry_bytes_left: 0,
        }
    }

    /// The same for a scan: so many entries are enough, or entries with so many bytes.
    pub(super) fn of_scan(bytes_max: usize, entries_enough: usize, bytes_enough: usize) -> Self {
        Self { entries_left: entries_enough, entry_bytes_left: bytes_enough, ..Self::new(bytes_max) }
    }

    /// Whether one more entry is wanted.
    pub(super) const fn wants_entries(&self) -> bool {
        self.fault.is_none() && self.entries_left > 0 && self.entry_bytes_left > 0
    }

    /// Takes an entry of a scan.
    ///
    /// # Safety
    /// `key` and `value` are as the header says.
    pub(super) unsafe fn entry(&mut self, key: abi::Bytes<'_>, value: abi::Bytes<'_>) -> Copied<Answer> {
        if !self.wants_entries() {
            return Err(bad("it gives another entry after it was told that it is enough"));
        }
        self.entries_left -= 1;
        self.entry_bytes_left = self.entry_bytes_left.saturating_sub(key.bytes.saturating_add(value.bytes));
        // SAFETY: as the caller promises.
        let key = unsafe { self.bytes(key) }?.ok_or_else(|| bad("the key of an entry is a null pointer"))?;
        // SAFETY: as the caller promises.
        let value = unsafe { self.bytes(value) }?.unwrap_or_default();
        Ok(Answer::Entries(vec![(key.into(), value.into())]))
    }

    /// What was answered.
    ///
    /// # Errors
    /// The first thing that was wrong with it.
    pub(super) fn finish(self) -> Result<Answer, Failure> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.answer),
        }
    }

    /// Takes the answer that `copy` makes. What is wrong with it is kept: the library is not told.
    pub(super) fn take(&mut self, copy: impl FnOnce(&mut Self) -> Copied<Answer>) {
        if self.fault.is_some() {
            return;
        }
        match copy(self) {
            Ok(answer) => self.put(answer),
            Err(fault) => self.fault = Some(fault),
        }
    }

    fn put(&mut self, answer: Answer) {
        match (&mut self.answer, answer) {
            (before @ Answer::None, answer) => *before = answer,
            (Answer::Emit(before), Answer::Emit(more)) if before.len() < LIST_MAX => before.extend(more),
            (Answer::Want(before), Answer::Want(more)) if before.len() < LIST_MAX => before.extend(more),
            (Answer::Entries(before), Answer::Entries(more)) => before.extend(more),
            // What was found before something could not be read is not all.
            (before @ Answer::Entries(_), refusal @ Answer::Refuse(_)) => *before = refusal,
            (before, answer) => {
                let twice = format!("it answers twice: '{}' after '{}'", answer.word(), before.word());
                self.fault = Some(bad(twice));
            }
        }
    }

    fn spend(&mut self, bytes: usize) -> Copied<()> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(Failure::new(
                FailureKind::OutputTooLarge,
                "it answers with more than its output_bytes_max",
            )),
        }
    }

    /// A copy of `view`; `None` where it is absent.
    ///
    /// # Safety
    /// `view` is as the header says.
    pub(super) unsafe fn bytes(&mut self, view: abi::Bytes<'_>) -> Copied<Option<Vec<u8>>> {
        // Before it is looked at: a length that is wrong is more likely too large than right.
        self.spend(view.bytes)?;
        // SAFETY: as the caller promises.
        Ok(unsafe { view.get() }.map(<[u8]>::to_vec))
    }

    /// A copy of `view`, the answer's `what`; `None` where it is absent.
    ///
    /// # Safety
    /// `view` is as the header says.
    pub(super) unsafe fn optional_text(&mut self, what: &str, view: abi::Text<'_>) -> Copied<Option<String>> {
        // SAFETY: as the caller promises.
        let bytes = unsafe { self.bytes(view) }?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| bad(format!("its {what} is no UTF-8")))
    }

    /// A copy of `view`, the answer's `what`, which has to be there.
    ///
    /// # Safety
    /// `view` is as the header says.
    pub(super) unsafe fn text(&mut self, what: &str, view: abi::Text<'_>) -> Copied<String> {
        // SAFETY: as the caller promises.
        let text = unsafe { self.optional_text(what, view) }?;
        text.ok_or_else(|| bad(format!("its {what} is a null pointer")))
    }

    /// The list of `count` things at `first`, the answer's `what`.
    ///
    /// # Safety
    /// `first` and `count` are as the header says.
    pub(super) unsafe fn list<'a, T>(
        &mut self,
        what: &str,
        first: *const T,
        count: usize,
    ) -> Copied<&'a [T]> {
        if count > LIST_MAX {
            return Err(bad(format!("its list of {what} has {count} entries; at most {LIST_MAX} are read")));
        }
        if first.is_null() && count > 0 {
            return Err(bad(format!("its list of {what} is a null pointer, and has {count} entries")));
        }
        if !first.is_aligned() {
            return Err(bad(format!("its list of {what} is not aligned")));
        }
        self.spend(count.saturating_mul(size_of::<T>()))?;
        // SAFETY: as the caller promises.
        Ok(unsafe { abi::several(first, count) })
    }

    /// # Safety
    /// `first` and `count` are as the header says.
    unsafe fn pairs(
        &mut self,
        what: &str,
        first: *const abi::Pair<'_>,
        count: usize,
    ) -> Copied<Vec<types::PairResult>> {
        // SAFETY: as the caller promises.
        let pairs = unsafe { self.list(what, first, count) }?;
        let copy = |pair: &abi::Pair<'_>| {
            // SAFETY: as the caller promises.
            let name = unsafe { self.text(what, pair.name) }?;
            // SAFETY: as the caller promises.
            Ok(types::PairResult { name, value: unsafe { self.text(what, pair.value) }? })
        };
        pairs.iter().map(copy).collect()
    }

    /// A copy of `lease`.
    ///
    /// # Safety
    /// `lease` and what it points to are as the header says.
    pub(super) unsafe fn lease(&mut self, lease: &abi::Lease<'_>) -> Copied<types::Lease> {
        let rights = match flag("has_rights", lease.has_rights)? {
            // SAFETY: as the caller promises.
            true => Some(unsafe { self.rights(lease) }?),
            false => None,
        };
        let expires = flag("has_expires_in", lease.has_expires_in)?;
        Ok(types::Lease {
            // SAFETY: as the caller promises.
            principal: unsafe { self.text("principal", lease.principal) }?,
            // SAFETY: as the caller promises.
            attributes: unsafe { self.pairs("attributes", lease.attributes, lease.attributes_count) }?,
            expires_in_seconds: expires.then_some(lease.expires_in_seconds),
            rights,
            quotas: quotas(lease),
        })
    }

    /// # Safety
    /// `lease` and what it points to are as the header says.
    unsafe fn rights(&mut self, lease: &abi::Lease<'_>) -> Copied<types::Rights> {
        // SAFETY: as the caller promises.
        let publish = unsafe { self.list("rights to publish", lease.publish, lease.publish_count) }?;
        // SAFETY: as the caller promises.
        let subscribe = unsafe { self.list("rights to subscribe", lease.subscribe, lease.subscribe_count) }?;
        let mut rights = types::Rights { publish: Vec::new(), subscribe: Vec::new() };
        for right in publish {
            rights.publish.push(types::PublishRight {
                // SAFETY: as the caller promises.
                filter: unsafe { self.text("filter", right.filter) }?,
                qos_max: qos("qos_max", right.qos_max)?,
                retain: flag("retain", right.retain)?,
            });
        }
        for right in subscribe {
            rights.subscribe.push(types::SubscribeRight {
                // SAFETY: as the caller promises.
                filter: unsafe { self.text("filter", right.filter) }?,
                qos_max: qos("qos_max", right.qos_max)?,
            });
        }
        Ok(rights)
    }

    /// A copy of `draft`.
    ///
    /// # Safety
    /// `draft` and what it points to are as the header says.
    pub(super) unsafe fn draft(&mut self, draft: &abi::Draft<'_>) -> Copied<types::Draft> {
        let from = &draft.properties;
        let payload_is_utf8 = match from.payload_format {
            abi::FORMAT_ABSENT => None,
            abi::FORMAT_BYTES => Some(false),
            abi::FORMAT_UTF8 => Some(true),
            other => return Err(bad(format!("its payload_format is {other}"))),
        };
        let properties = types::PropertiesResult {
            payload_is_utf8,
            // SAFETY: as the caller promises.
            content_type: unsafe { self.optional_text("Content Type", from.content_type) }?,
            // SAFETY: as the caller promises.
            response_topic: unsafe { self.optional_text("Response Topic", from.response_topic) }?,
            // SAFETY: as the caller promises.
            correlation_data: unsafe { self.bytes(from.correlation_data) }?,
            // SAFETY: as the caller promises.
            user: unsafe { self.pairs("User Properties", from.user, from.user_count) }?,
        };
        let expires = flag("has_expires_in", draft.has_expires_in)?;
        Ok(types::Draft {
            // SAFETY: as the caller promises.
            topic: unsafe { self.text("topic", draft.topic) }?,
            // SAFETY: as the caller promises.
            payload: unsafe { self.bytes(draft.payload) }?.unwrap_or_default(),
            qos: qos("qos", draft.qos)?,
            retain: flag("retain", draft.retain)?,
            properties,
            expires_in_ms: expires.then_some(draft.expires_in_ms),
        })
    }
}

fn quotas(lease: &abi::Lease<'_>) -> Option<types::Quotas> {
    let bound = |max: u32| (max > 0).then_some(max);
    let quotas = types::Quotas {
        publish_rate_max: bound(lease.publish_rate_max),
        subscriptions_max: bound(lease.subscriptions_max),
    };
    (quotas.publish_rate_max.is_some() || quotas.subscriptions_max.is_some()).then_some(quotas)
}

fn qos(what: &str, value: u8) -> Copied<types::Qos> {
    match value {
        0 => Ok(types::Qos::AtMostOnce),
        1 => Ok(types::Qos::AtLeastOnce),
        2 => Ok(types::Qos::ExactlyOnce),
        other => Err(bad(format!("its {what} is {other}; it may be 0, 1 or 2"))),
    }
}

fn flag(what: &str, value: u8) -> Copied<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(bad(format!("its {what} is {other}; it may be 0 or 1"))),
    }
}

/// An answer that is none.
pub(super) fn bad(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadAnswer, detail)
}

/// `answer`, which is none that the hook has.
pub(super) fn unfit<T>(answer: &Answer) -> Result<T, Failure> {
    Err(match answer {
        Answer::None => bad("it returns without an answer"),
        answer => bad(format!("it answers '{}', which this hook does not have", answer.word())),
    })
}
