use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::{ServerError, ServerErrorKind};

const OVERRIDE: &str = "RYW_PG_BIN";
const DEBIAN: &str = "/usr/lib/postgresql";
const NEEDED: [&str; 3] = ["initdb", "postgres", "psql"];

/// The folder of the PostgreSQL programs that [`ClusterBuilder::start`] uses.
///
/// That is the folder named by the environment variable `RYW_PG_BIN` if it is set; else the newest
/// `/usr/lib/postgresql/*/bin`; else the first folder of `PATH`; in each case one that holds
/// `initdb`, `postgres` and `psql`.
///
/// # Errors
///
/// [`ServerErrorKind::MissingBinaries`] if there is none. The text names the Debian package.
///
/// [`ClusterBuilder::start`]: super::ClusterBuilder::start
pub fn bin_dir() -> Result<PathBuf, ServerError> {
    find(env::var_os(OVERRIDE).as_deref(), Path::new(DEBIAN), env::var_os("PATH").as_deref())
}

fn find(chosen: Option<&OsStr>, debian: &Path, path: Option<&OsStr>) -> Result<PathBuf, ServerError> {
    // No falling through: a version asked for by name must not turn into another one.
    if let Some(dir) = chosen.filter(|dir| !dir.is_empty()) {
        return Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute() && complete(dir)).ok_or_else(|| {
            let dir = Path::new(dir).display();
            missing(&format!(
                "{OVERRIDE} is {dir}, which is not the absolute path of a folder with \
                     {NEEDED:?}: correct or unset it"
            ))
        });
    }
    let on_path = path.into_iter().flat_map(env::split_paths);
    newest_first(debian).into_iter().chain(on_path).find(|dir| complete(dir)).ok_or_else(|| {
        missing(&format!("PostgreSQL's programs {NEEDED:?} are neither in {}/*/bin nor on PATH", debian.display()))
    })
}

fn missing(what: &str) -> ServerError {
    let advice = format!("{what}; install them with `apt-get install postgresql`, or set {OVERRIDE} to their folder");
    ServerError::new(ServerErrorKind::MissingBinaries, advice)
}

fn complete(dir: &Path) -> bool {
    NEEDED.iter().all(|program| dir.join(program).is_file())
}

fn newest_first(debian: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // As numbers, since "9" sorts after "15".
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("ryw-bin-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn install(&self, version: &str, programs: &[&str]) -> PathBuf {
            let bin = self.0.join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for program in programs {
                fs::write(bin.join(program), "").unwrap();
            }
            bin
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_newest_complete_version_wins() {
        let root = Scratch::new("newest");
        root.install("9", &NEEDED);
        let expected = root.install("15", &NEEDED);
        root.install("17", &["psql"]);
        assert_eq!(find(None, &root.0, None).unwrap(), expected);
        assert_eq!(find(Some("".as_ref()), &root.0, None).unwrap(), expected);
    }

    #[test]
    fn path_is_the_last_resort() {
        let root = Scratch::new("path");
        let expected = root.install("any", &NEEDED);
        let nowhere = root.0.join("nowhere");
        let path = env::join_paths([&nowhere, &expected]).unwrap();
        assert_eq!(find(None, &nowhere, Some(&path)).unwrap(), expected);
    }

    #[test]
    fn the_override_is_never_replaced_by_another_version() {
        let root = Scratch::new("override");
        let other = root.install("16", &NEEDED);
        let incomplete = root.install("15", &["postgres"]);
        let error = find(Some(incomplete.as_ref()), &root.0, None).unwrap_err();
        assert_eq!(error.kind(), ServerErrorKind::MissingBinaries);
        assert_eq!(find(Some(other.as_ref()), &root.0, None).unwrap(), other, "a complete folder is taken");
    }

    #[test]
    fn the_error_says_what_to_install() {
        let text = find(None, Path::new("/nonexistent"), None).unwrap_err().to_string();
        assert!(text.contains("apt-get install postgresql"), "{text}");
        assert!(text.contains(OVERRIDE), "{text}");
    }
}
