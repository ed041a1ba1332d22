//! A disk in memory that remembers every call. From its trace, the disk can be had as power loss at any moment
//! might leave it. It also fails calls, and runs full.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weirmq_store::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub struct SimDisk {
    sim: Arc<Mutex<Sim>>,
    locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct Sim {
    names: BTreeMap<String, usize>,
    contents: Vec<Vec<u8>>,
    trace: Vec<Call>,
    calls: usize,
    fail: Option<Fail>,
    fail_too: Option<Fail>,
    space_bytes: Option<usize>,
}

/// Which calls fail, and how.
#[derive(Clone, Copy)]
pub struct Fail {
    pub from: usize,
    pub until: usize,
    pub kind: io::ErrorKind,
}

#[derive(Clone)]
enum Call {
    Create(String, usize),
    Remove(String),
    SyncFolder,
    Write(usize, usize, Vec<u8>),
    Truncate(usize, usize),
    Sync(usize),
    /// What was written before is dropped, as Linux does, and still read back while the power lasts.
    FailedSync(usize),
}

/// What becomes of what was written and not synced when the power is lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// It is lost.
    All,
    /// It is there.
    Nothing,
    /// Of each file's last write there is the first half.
    Torn,
    /// Of each file there is only its last write.
    LastOnly,
    /// Of each sector of each write chance decides.
    Random(u64),
}

impl SimDisk {
    /// How many calls have changed something.
    pub fn trace_len(&self) -> usize {
        self.sim.lock().trace.len()
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.sim.lock().calls
    }

    pub fn fail(&self, fail: Option<Fail>) {
        self.sim.lock().fail = fail;
    }

    /// Which calls fail besides.
    pub fn fail_too(&self, fail: Option<Fail>) {
        self.sim.lock().fail_too = fail;
    }

    /// The disk has room for so many bytes altogether.
    pub fn space(&self, bytes: Option<usize>) {
        self.sim.lock().space_bytes = bytes;
    }

    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let sim = self.sim.lock();
        sim.names.iter().map(|(name, inode)| (name.clone(), sim.contents[*inode].clone())).collect()
    }

    pub fn bytes(&self) -> usize {
        self.files().values().map(Vec::len).sum()
    }

    /// A disk with these files on it, all durable.
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        {
            let mut sim = disk.sim.lock();
            for (name, content) in files {
                let inode = sim.contents.len();
                sim.contents.push(content.clone());
                sim.names.insert(name.clone(), inode);
                sim.trace.push(Call::Create(name.clone(), inode));
                sim.trace.push(Call::Write(inode, 0, content.clone()));
                sim.trace.push(Call::Sync(inode));
            }
            sim.trace.push(Call::SyncFolder);
        }
        disk
    }

    /// The disk when the power is lost after `calls` of the calls that changed something.
    pub fn after_power_loss(&self, calls: usize, loss: Loss) -> Self {
        let sim = self.sim.lock();
        let mut power = PowerLoss::default();
        for call in &sim.trace[..calls] {
            power.see(call);
        }
        Self::with(&power.left(loss))
    }

    fn call(&self) -> io::Result<()> {
        let mut sim = self.sim.lock();
        sim.calls += 1;
        let calls = sim.calls;
        let mut fails = [sim.fail, sim.fail_too].into_iter().flatten();
        match fails.find(|fail| (fail.from..fail.until).contains(&calls)) {
            Some(fail) => Err(fail.kind.into()),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct PowerLoss {
    durable: BTreeMap<usize, Vec<u8>>,
    pending: BTreeMap<usize, Vec<Call>>,
    names: BTreeMap<String, usize>,
    pending_names: Vec<Call>,
}

impl PowerLoss {
    fn see(&mut self, call: &Call) {
        match call {
            Call::Create(..) | Call::Remove(_) => self.pending_names.push(call.clone()),
            Call::SyncFolder => {
                for call in std::mem::take(&mut self.pending_names) {
                    self.name(&call);
                }
            }
            Call::Write(inode, ..) | Call::Truncate(inode, _) => {
                self.pending.entry(*inode).or_default().push(call.clone());
            }
            Call::Sync(inode) => {
                for call in self.pending.remove(inode).unwrap_or_default() {
                    write(self.durable.entry(*inode).or_default(), &call);
                }
            }
            Call::FailedSync(inode) => drop(self.pending.remove(inode)),
        }
    }

    fn name(&mut self, call: &Call) {
        match call {
            Call::Create(name, inode) => drop(self.names.insert(name.clone(), *inode)),
            Call::Remove(name) => drop(self.names.remove(name)),
            _ => unreachable!("only names are pending there"),
        }
    }

    fn left(mut self, loss: Loss) -> BTreeMap<String, Vec<u8>> {
        let mut chance = match loss {
            Loss::Random(seed) => seed | 1,
            _ => 1,
        };
        let mut next = move || {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance >> 11
        };
        let names = std::mem::take(&mut self.pending_names);
        let kept = match loss {
            Loss::All => 0,
            Loss::Random(_) => next() as usize % (names.len() + 1),
            _ => names.len(),
        };
        names[..kept].iter().for_each(|call| self.name(call));
        for (inode, calls) in std::mem::take(&mut self.pending) {
            let content = self.durable.entry(inode).or_default();
            let last = calls.len() - 1;
            for (index, call) in calls.iter().enumerate() {
                match (loss, call) {
                    (Loss::All, _) => {}
                    (Loss::Torn, Call::Write(inode, at, bytes)) if index == last => {
                        write(content, &Call::Write(*inode, *at, bytes[..bytes.len() / 2].to_vec()));
                    }
                    (Loss::LastOnly, _) if index < last => {}
                    (Loss::Random(_), Call::Write(inode, at, bytes)) => {
                        for (sector, part) in bytes.chunks(SECTOR_BYTES).enumerate() {
                            if next() % 2 == 0 {
                                write(
                                    content,
                                    &Call::Write(*inode, at + sector * SECTOR_BYTES, part.to_vec()),
                                );
                            }
                        }
                    }
                    (Loss::Random(_), _) if next() % 2 == 0 => {}
                    _ => write(content, call),
                }
            }
        }
        let Self { durable, names, .. } = self;
        names
            .into_iter()
            .map(|(name, inode)| (name, durable.get(&inode).cloned().unwrap_or_default()))
            .collect()
    }
}

fn write(content: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write(_, at, bytes) => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(bytes);
        }
        Call::Truncate(_, bytes) => content.truncate(*bytes),
        _ => unreachable!("only contents are pending there"),
    }
}

struct Locked(Arc<AtomicBool>);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.call()?;
        if self.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Locked(Arc::clone(&self.locked))))
    }

    fn in_use(&self) -> io::Result<bool> {
        Ok(self.locked.load(Ordering::SeqCst))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.call()?;
        Ok(self.sim.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        let inode = self.sim.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        let mut sim = self.sim.lock();
        if sim.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = sim.contents.len();
        sim.contents.push(Vec::new());
        sim.names.insert(name.to_owned(), inode);
        sim.trace.push(Call::Create(name.to_owned(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?;
        let mut sim = self.sim.lock();
        sim.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        sim.trace.push(Call::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.call()?;
        self.sim.lock().trace.push(Call::SyncFolder);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

impl SimFile {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut sim = self.disk.sim.lock();
        let call = Call::Write(self.inode, offset as usize, bytes.to_vec());
        write(&mut sim.contents[self.inode], &call);
        sim.trace.push(call);
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call()?;
        let sim = self.disk.sim.lock();
        let rest = sim.contents[self.inode].get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let full = {
            let used = self.disk.bytes();
            let sim = self.disk.sim.lock();
            let grows = (offset as usize + bytes.len()).saturating_sub(sim.contents[self.inode].len());
            let room = sim.space_bytes.map_or(usize::MAX, |space| space.saturating_sub(used));
            (grows > room).then(|| bytes.len() - (grows - room).min(bytes.len()))
        };
        if let Some(fits) = full {
            self.write(offset, &bytes[..fits]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Err(error) = self.disk.call() {
            // Something of it may be there.
            self.write(offset, &bytes[..bytes.len() / 2]);
            return Err(error);
        }
        self.write(offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let outcome = self.disk.call();
        let call = if outcome.is_ok() { Call::Sync(self.inode) } else { Call::FailedSync(self.inode) };
        self.disk.sim.lock().trace.push(call);
        outcome
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call()?;
        let mut sim = self.disk.sim.lock();
        let call = Call::Truncate(self.inode, bytes as usize);
        write(&mut sim.contents[self.inode], &call);
        sim.trace.push(call);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.call()?;
        Ok(self.disk.sim.lock().contents[self.inode].len() as u64)
    }
}
