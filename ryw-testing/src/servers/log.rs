use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
};

const TAIL: u64 = 4096;

/// The file that a server's output is appended to.
#[derive(Debug)]
pub(super) struct Log {
    file: PathBuf,
    start: u64,
}

impl Log {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, start: 0 }
    }

    /// Opens the file for a server that is about to start.
    pub(super) fn start(&mut self) -> io::Result<File> {
        let file = File::options().append(true).create(true).open(&self.file)?;
        self.start = file.metadata()?.len();
        Ok(file)
    }

    /// What was written since the last start; empty if it cannot be read.
    pub(super) fn since_start(&self) -> String {
        self.read_from(self.start).unwrap_or_default()
    }

    /// The last lines; empty if they cannot be read.
    pub(super) fn tail(&self) -> String {
        let len = fs::metadata(&self.file).map_or(0, |file| file.len());
        let from = len.saturating_sub(TAIL);
        let text = self.read_from(from).unwrap_or_default();
        match text.split_once('\n') {
            // The first line is cut off somewhere.
            Some((_, whole)) if from > 0 => whole.to_owned(),
            _ => text,
        }
    }

    fn read_from(&self, from: u64) -> io::Result<String> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
