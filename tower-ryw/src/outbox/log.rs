//! The file: appended to, cut where it was torn, replaced as a whole.
//!
//! ```text
//! <directory>/lock      held as long as the outbox is in use
//! <directory>/log       magic 8 · entry*
//! <directory>/log.new   becomes the log by being renamed
//! ```
//!
//! Everything here blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::entry::{Entry, Undelivered};
use crate::error::{OutboxError, OutboxErrorKind};

/// The last byte is the version.
const MAGIC: &[u8; 8] = b"RYW-OUT\x01";

#[derive(Debug)]
pub(crate) struct Log {
    directory: PathBuf,
    file: File,
    /// Given up with the file, also by a process that is killed.
    _lock: File,
    bytes: u64,
    /// What is in the file is not known any more: a sync that has failed once may have dropped what it was to write.
    is_broken: bool,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) entries: Vec<Undelivered>,
    /// Something could not be kept, or can't be read any more.
    pub(crate) in_doubt: bool,
}

impl Log {
    pub(crate) fn open(directory: &Path) -> Result<(Self, Recovered), OutboxError> {
        let failed = |error| OutboxError::io(directory, error);
        create(directory).map_err(failed)?;
        let lock = options().create(true).truncate(false).open(directory.join("lock")).map_err(failed)?;
        lock_exclusively(&lock, directory)?;
        let found = match fs::read(directory.join("log")) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let (recovered, whole) = match &found {
            Some(found) => recover(found).ok_or_else(|| OutboxError::new(directory, OutboxErrorKind::Foreign))?,
            None => (Recovered::default(), &[][..]),
        };
        let path = directory.join("log");
        let is_whole = |found: &Vec<u8>| found.len() == MAGIC.len() + whole.len();
        let mut gap = Vec::new();
        let file = match &found {
            Some(found) if is_whole(found) => options().append(true).open(path),
            None => replace(directory, &[MAGIC]),
            // As a whole, and not by cutting: nobody is killed between the cut and the note that something was cut.
            Some(_) => {
                Entry::write_gap(&mut gap);
                replace(directory, &[MAGIC, whole, &gap])
            }
        };
        let bytes = (MAGIC.len() + whole.len() + gap.len()) as u64;
        let file = file.map_err(failed)?;
        let log = Self { directory: directory.to_owned(), file, _lock: lock, bytes, is_broken: false };
        Ok((log, recovered))
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether nothing is in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == MAGIC.len() as u64
    }

    /// From now on the disk is full for this file.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn fill_disk(&mut self) -> io::Result<()> {
        self.file = options().open("/dev/full")?;
        Ok(())
    }

    /// Appends whole entries, and returns once they are on the disk.
    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(entries).and_then(|()| self.file.sync_data());
        self.is_broken = written.is_err();
        self.bytes += entries.len() as u64;
        written
    }

    /// Replaces everything, and returns once that is on the disk. Whoever is killed meanwhile leaves the one or the other.
    pub(super) fn rewrite(&mut self, entries: &[u8]) -> io::Result<()> {
        self.is_broken = true;
        self.file = replace(&self.directory, &[MAGIC, entries])?;
        self.bytes = (MAGIC.len() + entries.len()) as u64;
        self.is_broken = false;
        Ok(())
    }
}

/// What is in the file, and the bytes of what is whole. `None` when it is not an outbox's.
fn recover(found: &[u8]) -> Option<(Recovered, &[u8])> {
    let mut recovered = Recovered::default();
    let Some(entries) = found.strip_prefix(MAGIC) else {
        recovered.in_doubt = true;
        return MAGIC.starts_with(found).then_some((recovered, &[]));
    };
    let mut rest = entries;
    while let Some((entry, left)) = Entry::read(rest) {
        match entry {
            Entry::Marks(undelivered) => recovered.entries.push(undelivered),
            Entry::Gap => recovered.in_doubt = true,
        }
        rest = left;
    }
    // Torn by a crash, and then nobody was promised it; or damaged, and then nobody knows whose it was.
    recovered.in_doubt |= !rest.is_empty();
    Some((recovered, &entries[..entries.len() - rest.len()]))
}

/// Makes the directory last: a name is its parent's, and only the parent's own sync keeps it.
fn create(directory: &Path) -> io::Result<()> {
    let is_missing = |directory: &&Path| !directory.as_os_str().is_empty() && !directory.exists();
    let missing: Vec<_> = directory.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(directory)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn replace(directory: &Path, parts: &[&[u8]]) -> io::Result<File> {
    let [new, log] = ["log.new", "log"].map(|name| directory.join(name));
    // Left behind by a process that was killed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().append(true).create_new(true).open(&new)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&new, &log)?;
    // The name is the directory's, and only its own sync makes it last.
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// Who wrote when is nobody else's business.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn lock_exclusively(lock: &File, directory: &Path) -> Result<(), OutboxError> {
    use rustix::{
        fs::{FlockOperation, flock},
        io::Errno,
    };

    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(OutboxError::new(directory, OutboxErrorKind::InUse)),
        Err(error) => Err(OutboxError::io(directory, error.into())),
    }
}

#[cfg(not(unix))]
fn lock_exclusively(_: &File, directory: &Path) -> Result<(), OutboxError> {
    Err(OutboxError::new(directory, OutboxErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ryw_core::{Marks, SubjectKey};

    use super::*;

    fn undelivered(number: u8) -> Undelivered {
        let since = Duration::from_secs(number.into());
        Undelivered { keys: vec![SubjectKey::from_bytes([number; 16])], marks: Marks::unknown(), since, hold: None }
    }

    fn bytes(numbers: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        numbers.into_iter().for_each(|number| undelivered(number).write(&mut bytes));
        bytes
    }

    #[test]
    fn a_file_that_was_torn_anywhere_has_what_was_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.append(&bytes(0..5)).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        let size = bytes([0]).len();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let count = u8::try_from(cut.saturating_sub(MAGIC.len()) / size).unwrap();
            let is_torn = cut < MAGIC.len() || !(cut - MAGIC.len()).is_multiple_of(size);
            for _ in 0..2 {
                let (_, recovered) = Log::open(directory.path()).unwrap();
                assert_eq!(recovered.entries, (0..count).map(undelivered).collect::<Vec<_>>(), "{cut}");
                assert_eq!(recovered.in_doubt, is_torn, "{cut}: also when it is opened again");
            }
            // It can be written to, and what is written is found.
            let (mut log, _) = Log::open(directory.path()).unwrap();
            log.append(&bytes([9])).unwrap();
            drop(log);
            let (_, recovered) = Log::open(directory.path()).unwrap();
            assert_eq!(recovered.entries.last(), Some(&undelivered(9)), "{cut}");
        }
    }

    #[test]
    fn what_follows_a_damaged_entry_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.append(&bytes(0..3)).unwrap();
        drop(log);
        let path = directory.path().join("log");
        let mut found = fs::read(&path).unwrap();
        found[MAGIC.len() + bytes([0]).len() + 20] ^= 1;
        fs::write(&path, found).unwrap();
        let (_, recovered) = Log::open(directory.path()).unwrap();
        assert_eq!(recovered.entries, [undelivered(0)]);
        assert!(recovered.in_doubt, "nobody knows whose it was");
    }

    #[test]
    fn the_new_file_has_what_it_was_told_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.append(&bytes(0..3)).unwrap();
        log.rewrite(&bytes([7])).unwrap();
        log.append(&bytes([8])).unwrap();
        assert_eq!(log.bytes(), fs::metadata(directory.path().join("log")).unwrap().len());
        drop(log);
        // Killed while it was replaced.
        fs::write(directory.path().join("log.new"), b"half a fi").unwrap();
        let (mut log, recovered) = Log::open(directory.path()).unwrap();
        assert_eq!((recovered.entries, recovered.in_doubt), (vec![undelivered(7), undelivered(8)], false));
        log.rewrite(&[]).unwrap();
        assert!(log.is_empty());
    }

    #[test]
    fn a_directory_has_one_user() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("made/if/need/be");
        let kind = || Log::open(&directory).map(drop).map_err(|error| error.kind());
        let first = Log::open(&directory).unwrap();
        assert_eq!(kind(), Err(OutboxErrorKind::InUse));
        drop(first);
        assert_eq!(kind(), Ok(()));
        fs::write(directory.join("log"), b"Dear diary").unwrap();
        assert_eq!(kind(), Err(OutboxErrorKind::Foreign));
        fs::remove_file(directory.join("log")).unwrap();
        fs::create_dir(directory.join("log")).unwrap();
        assert_eq!(kind(), Err(OutboxErrorKind::Io));
    }
}
