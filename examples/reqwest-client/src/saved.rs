//! A session in a file.

use std::{fs, io, path::Path};

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

/// All of it or nothing: a run that is cut short leaves the session as it was.
pub(crate) fn store(file: &Path, session: &SavedSession) -> Result<(), String> {
    let draft = file.with_extension("new");
    let written = fs::write(&draft, format!("{session}\n")).and_then(|()| fs::rename(&draft, file));
    written.map_err(|error| format!("can't write {}: {error}", file.display()))
}
