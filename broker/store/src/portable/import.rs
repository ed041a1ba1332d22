//! From lines to a new store. Everything is read and checked before there is a store: it is written into a
//! folder beside, and put in its place when the last line has been read.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::line::{Head, Line, Message, Session, SinkRecord};
use super::{Exported, LINE_BYTES_MAX, LINES_VERSION};
use crate::config::{Compaction, Config, Durability};
use crate::error::{OpenError, StoreError, remedy};
use crate::event::{Event, Number, Published, Recipients, RetainChange};
use crate::folder::NewFolder;
use crate::log_store::LogStore;

/// What was imported.
pub type Imported = Exported;

/// Why nothing was imported. Nothing on the disk is changed then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is not what it must be.
    #[error("line {line}, {key}: {what}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What in it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The lines cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Read {
        /// Which, from 1.
        line: u64,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is something in the folder.
    #[error("{path} is not empty; name a new folder, or an empty one")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be written to.
    #[error("{doing} {path} failed: {source}; {}", remedy(source))]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// At which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a store in `folder`, which must be new or empty, of what [`export`](super::export()) has written.
///
/// # Errors
/// [`ImportError`], and `folder` is as it was.
pub fn import(lines: &mut dyn BufRead, folder: &Path) -> Result<Imported, ImportError> {
    let io = |doing, path: &Path, source| ImportError::Io { doing, path: path.to_owned(), source };
    let new = NewFolder::take(folder).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty => ImportError::NotEmpty { path: folder.to_owned() },
        io::ErrorKind::NotADirectory => OpenError::NotAFolder { path: folder.to_owned() }.into(),
        _ => io("creating", folder, source),
    })?;
    let beside = new.beside();
    let config = Config { durability: Durability::Os, compaction: Compaction::Manual, ..Config::default() };
    let mut importer = Importer {
        store: LogStore::open(&beside, config)?,
        imported: Imported::default(),
        clients: HashSet::new(),
        next_number: 1,
        last_message: 0,
        last_of_sinks: BTreeMap::new(),
    };
    importer.lines(lines)?;
    importer.store.close()?;
    new.fill_from(&beside).map_err(|source| io("writing to", folder, source))?;
    Ok(importer.imported)
}

struct Importer {
    store: LogStore,
    imported: Imported,
    clients: HashSet<Arc<str>>,
    /// What comes with a number has a smaller one.
    next_number: Number,
    last_message: Number,
    last_of_sinks: BTreeMap<Arc<str>, Number>,
}

/// What is wrong with a line: a key, and what.
type Fault = (String, String);

/// Why a line is not taken.
enum Refused {
    Line(Fault),
    Store(StoreError),
}

impl std::convert::From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Importer {
    fn lines(&mut self, input: &mut dyn BufRead) -> Result<(), ImportError> {
        let mut bytes = Vec::new();
        let mut before = 0;
        loop {
            let line = before + 1;
            bytes.clear();
            let mut limited = (&mut *input).take(LINE_BYTES_MAX);
            limited.read_until(b'\n', &mut bytes).map_err(|source| ImportError::Read { line, source })?;
            let outcome = match self.line(&bytes, before) {
                Ok(true) => return at_end(input, line + 1),
                Ok(false) => Ok(()),
                Err(Refused::Line((key, what))) => Err(ImportError::Line { line, key, what }),
                Err(Refused::Store(error)) => Err(error.into()),
            };
            outcome?;
            before += 1;
        }
    }

    /// Takes a line. Whether it was the last.
    fn line(&mut self, bytes: &[u8], before: u64) -> Result<bool, Refused> {
        let fault = |key: &str, what: String| Refused::Line((key.to_owned(), what));
        if bytes.is_empty() {
            let what = "the lines end before the line 'end': they are not whole".to_owned();
            return Err(fault("end", what));
        }
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 >= LINE_BYTES_MAX {
            return Err(fault("it", format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let line = parse(bytes).map_err(Refused::Line)?;
        match line {
            Line::Store(head) => self.head(&head, before)?,
            _ if before == 0 => return Err(fault("store", "the first line is to be 'store'".to_owned())),
            Line::Session(session) => self.session(session)?,
            Line::Message(message) => self.message(message)?,
            Line::Retained(content) => {
                self.imported.retained += 1;
                self.append(&[Event::Published(Published {
                    stored: content.into_message(),
                    recipients: Recipients::new(),
                    retain: RetainChange::Replace,
                    taken_from: None,
                })])?;
            }
            Line::SinkRecord(record) => self.sink_record(record)?,
            Line::Key(key) => {
                self.imported.keys += 1;
                let (key, value, namespace) = (key.key.0, key.value.0, key.namespace.0);
                self.append(&[Event::KeySet { namespace, key, value }])?;
            }
            Line::End(end) if end.lines == before => return Ok(true),
            Line::End(end) => {
                let what = format!("{} lines were written, {before} are here", end.lines);
                return Err(fault("end.lines", what));
            }
        }
        Ok(false)
    }

    fn head(&mut self, head: &Head, before: u64) -> Result<(), Refused> {
        let fault = |key: &str, what: String| Err(Refused::Line((key.to_owned(), what)));
        if before > 0 {
            return fault("store", "there is one, and it is the first line".to_owned());
        }
        if head.version != LINES_VERSION {
            let what = format!("{} is not known, {LINES_VERSION} is", head.version);
            return fault("store.version", what);
        }
        if head.next_number == 0 || head.next_number == Number::MAX {
            return fault("store.next_number", format!("{} is out of range", head.next_number));
        }
        self.next_number = head.next_number;
        self.store.begin_numbers_at(head.next_number);
        Ok(())
    }

    fn session(&mut self, session: Session) -> Result<(), Refused> {
        let client = session.client.0;
        if !self.clients.insert(Arc::clone(&client)) {
            let what = format!("'{client}' has had a line before");
            return Err(Refused::Line(("session.client".to_owned(), what)));
        }
        self.imported.sessions += 1;
        let header = session.facts.map(super::line::Facts::into_header);
        let set = header.map(|session| Event::SessionSet { client: Arc::clone(&client), session });
        let subscribed = session.subscriptions.iter().map(|subscribed| Event::Subscribed {
            client: Arc::clone(&client),
            filter: Arc::clone(&subscribed.filter.0),
            subscription: subscribed.subscription(),
        });
        let taken = session.taken.iter().map(|packet_id| Event::Taken {
            from: crate::event::Sender { client: Arc::clone(&client), packet_id: *packet_id },
        });
        let record: Vec<_> = set.into_iter().chain(subscribed).chain(taken).collect();
        if record.is_empty() { Ok(()) } else { self.append(&record) }
    }

    fn message(&mut self, message: Message) -> Result<(), Refused> {
        let Message { number, content, recipients } = message;
        let fault = |key: String, what: String| Err(Refused::Line((key, what)));
        if let Some(what) = self.number_fault(number, self.last_message) {
            return fault("message.number".to_owned(), what);
        }
        let mut seen = HashSet::new();
        for (index, to) in recipients.iter().enumerate() {
            let client = &to.client.0;
            let what = if !self.clients.contains(client) {
                format!("no line 'session' before it has '{client}'")
            } else if !seen.insert(client) {
                format!("'{client}' is there twice")
            } else {
                continue;
            };
            return fault(format!("message.recipients[{index}].client"), what);
        }
        if recipients.is_empty() {
            return fault("message.recipients".to_owned(), "there is none".to_owned());
        }
        self.last_message = number;
        self.imported.messages += 1;
        let recipients = recipients.into_iter().map(super::line::To::into_recipient).collect();
        let (stored, retain) = (content.into_message(), RetainChange::Keep);
        let published = Published { stored, recipients, retain, taken_from: None };
        self.take(|store| store.append_message_with_number(number, &published))
    }

    fn sink_record(&mut self, record: SinkRecord) -> Result<(), Refused> {
        let SinkRecord { sink, number, record } = record;
        let last = self.last_of_sinks.get(&sink.0).copied().unwrap_or_default();
        if let Some(what) = self.number_fault(number, last) {
            return Err(Refused::Line(("sink_record.number".to_owned(), what)));
        }
        self.last_of_sinks.insert(Arc::clone(&sink.0), number);
        self.imported.sink_records += 1;
        self.take(|store| store.append_sink_record_with_number(number, &sink.0, &record.0))
    }

    fn number_fault(&self, number: Number, last: Number) -> Option<String> {
        if number <= last {
            return Some(format!("{number} is not greater than that of the line before, {last}"));
        }
        let next = self.next_number;
        (number >= next).then(|| format!("{number} is not less than store.next_number, {next}"))
    }

    fn append(&self, record: &[Event]) -> Result<(), Refused> {
        use crate::store::Store;
        self.take(|store| {
            let ticket = store.append(record);
            if ticket.number() > 0 { Ok(()) } else { ticket.wait() }
        })
    }

    /// Appends, and lets the disk catch up where it does not.
    fn take(&self, append: impl Fn(&LogStore) -> Result<(), StoreError>) -> Result<(), Refused> {
        use crate::store::Store;
        loop {
            match append(&self.store) {
                Err(StoreError::Backlog { .. }) => self.store.sync().wait()?,
                outcome => return Ok(outcome?),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Line, Fault> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let line = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let key = error.path().to_string();
        (if key == "." { "it".to_owned() } else { key }, in_words(&error.into_inner()))
    })?;
    json.end().map_err(|error| ("it".to_owned(), in_words(&error)))?;
    Ok(line)
}

/// What is wrong with a line: it is the first that the JSON parser sees, and not the first of the file.
fn in_words(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Behind the last line there is nothing.
fn at_end(input: &mut dyn BufRead, line: u64) -> Result<(), ImportError> {
    match input.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(ImportError::Line {
            line,
            key: "it".to_owned(),
            what: "there is something behind the line 'end'".to_owned(),
        }),
        Err(source) => Err(ImportError::Read { line, source }),
    }
}
