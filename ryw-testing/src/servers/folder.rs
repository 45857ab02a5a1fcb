use std::{
    env,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use super::ServerError;

/// A path in the temporary folder that nothing has yet. Absolute, since the programs have another
/// working directory.
pub(super) fn new_folder(kind: &str) -> Result<PathBuf, ServerError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    let name = format!("ryw-{kind}-{}-{count}-{nanos:x}", process::id());
    std::path::absolute(env::temp_dir().join(name))
        .map_err(|error| ServerError::io("cannot tell the working directory: set TMPDIR", error))
}
