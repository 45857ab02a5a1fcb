use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::{ServerError, ServerErrorKind};

const OVERRIDE: &str = "RYW_REDIS_BIN";
const PROGRAM: &str = "redis-server";
/// Searched after `PATH`, which in a service or a container may lack them.
const USUAL: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// The `redis-server` that is used: in the folder named by the environment variable
/// `RYW_REDIS_BIN` if it is set; else in the first folder that has it of `PATH`, `/usr/bin` and
/// `/usr/local/bin`.
///
/// # Errors
///
/// [`ServerErrorKind::MissingBinaries`] if there is none. The text names the Debian package.
pub fn server_program() -> Result<PathBuf, ServerError> {
    find(env::var_os(OVERRIDE).as_deref(), env::var_os("PATH").as_deref(), &USUAL)
}

fn find(chosen: Option<&OsStr>, path: Option<&OsStr>, usual: &[&str]) -> Result<PathBuf, ServerError> {
    // No falling through: a version asked for by name must not turn into another one.
    if let Some(folder) = chosen.filter(|folder| !folder.is_empty()) {
        return in_folder(Path::new(folder)).ok_or_else(|| {
            let folder = Path::new(folder).display();
            missing(&format!(
                "{OVERRIDE} is {folder}, which is not the absolute path of a folder with {PROGRAM}: correct or unset it"
            ))
        });
    }
    let on_path = path.into_iter().flat_map(env::split_paths);
    on_path
        .chain(usual.iter().map(PathBuf::from))
        .find_map(|folder| in_folder(&folder))
        .ok_or_else(|| missing(&format!("{PROGRAM} is neither on PATH nor in {usual:?}")))
}

fn in_folder(folder: &Path) -> Option<PathBuf> {
    // A relative one would mean something else in the servers' working directory.
    Some(folder.join(PROGRAM)).filter(|program| program.is_absolute() && program.is_file())
}

fn missing(what: &str) -> ServerError {
    let advice = format!("{what}; install it with `apt-get install redis-server`, or set {OVERRIDE} to its folder");
    ServerError::new(ServerErrorKind::MissingBinaries, advice)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_chosen_folder_then_path_then_the_usual_ones() {
        let root = env::temp_dir().join(format!("ryw-redis-bin-{}", std::process::id()));
        let folder = |name: &str, full: bool| {
            let folder = root.join(name);
            fs::create_dir_all(&folder).unwrap();
            if full {
                fs::write(folder.join(PROGRAM), "").unwrap();
            }
            folder
        };
        let (chosen, path, usual, empty) =
            (folder("chosen", true), folder("path", true), folder("usual", true), folder("empty", false));
        let usual = usual.to_str().unwrap();
        for (set, on_path, expected) in [
            (Some(chosen.as_os_str()), Some(&path), Some("chosen")),
            (Some(empty.as_os_str()), Some(&path), None),
            (Some("chosen".as_ref()), Some(&path), None),
            (Some("".as_ref()), Some(&path), Some("path")),
            (None, Some(&empty), Some("usual")),
            (None, None, Some("usual")),
        ] {
            let found = find(set, on_path.map(|path| path.as_os_str()), &[usual]).ok();
            assert_eq!(found, expected.map(|name| root.join(name).join(PROGRAM)), "{set:?} {on_path:?}");
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_error_says_what_to_install() {
        for chosen in [None, Some("/nonexistent".as_ref())] {
            let error = find(chosen, None, &[]).unwrap_err();
            assert_eq!(error.kind(), ServerErrorKind::MissingBinaries);
            let text = error.to_string();
            assert!(text.contains("apt-get install redis-server") && text.contains(OVERRIDE), "{text}");
        }
    }
}
