//! A session in a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use ryw_client::SavedSession;

/// What the file holds; an empty session when there is none.
pub(crate) fn load(file: &Path) -> Result<SavedSession, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SavedSession::default()),
        Err(error) => return Err(format!("can't read {}: {error}", file.display())),
    };
    text.trim_end().parse().map_err(|error| format!("{} holds no session: {error}", file.display()))
}

/// All of it or nothing: a run that is cut short leaves the session as it was. Tokens are for their owner alone: whoever has
/// them learns when the session wrote, and can be taken for it.
pub(crate) fn store(file: &Path, session: &SavedSession) -> Result<(), String> {
    let draft = file.with_extension("new");
    let written = private(&draft)
        .and_then(|mut draft| draft.write_all(format!("{session}\n").as_bytes()))
        .and_then(|()| fs::rename(&draft, file));
    written.map_err(|error| format!("can't write {}: {error}", file.display()))
}

/// An empty file that nobody else can read; not one that is there already, whoever may read that.
fn private(file: &Path) -> io::Result<File> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}
