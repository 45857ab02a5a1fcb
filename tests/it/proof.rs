//! `docs/PROOF.md` names tests; each of them is there.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// All sources of a crate, and what they are called.
type Sources = HashMap<String, Vec<(String, String)>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn crate_name(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

/// Reads the sources below `folder`, which belong to `owner` unless a manifest says otherwise.
fn read(folder: &Path, owner: &str, sources: &mut Sources) {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let owner = crate_name(&manifest).unwrap_or(owner);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
                read(&path, owner, sources);
            }
        } else if let Some(module) = name.strip_suffix(".rs") {
            // A folder's own file is called after the folder.
            let module = if module == "mod" { folder.file_name().unwrap().to_str().unwrap() } else { module };
            let text = fs::read_to_string(&path).unwrap();
            sources.entry(owner.to_owned()).or_default().push((module.to_owned(), text));
        }
    }
}

/// `crate module::function`, as tests are named in the document.
fn named(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|quoted| {
        let (owner, rest) = quoted.split_once(' ')?;
        let (module, function) = rest.split_once("::")?;
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (is_name(module) && is_name(function)).then_some((owner, module, function))
    })
}

fn exists(sources: &Sources, (owner, module, function): (&str, &str, &str)) -> bool {
    let defined = format!("fn {function}(");
    let files = sources.get(owner).into_iter().flatten();
    files.into_iter().any(|(name, text)| name == module && text.contains(&defined))
}

#[test]
fn every_test_that_the_document_names_is_there() {
    let mut sources = Sources::new();
    read(&root(), "", &mut sources);
    let document = fs::read_to_string(root().join("docs/PROOF.md")).unwrap();
    let missing: Vec<_> = named(&document).filter(|test| !exists(&sources, *test)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(named(&document).count() >= 20);
    assert!(!exists(&sources, ("tower-ryw", "threats", "a_test_that_was_never_written")));
}
