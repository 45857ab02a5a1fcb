//! The ladder of modules: each imports only from those declared before it in `lib.rs`.

use std::{collections::HashMap, fs, path::Path};

#[test]
fn modules_import_only_from_those_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let declared =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let rung: HashMap<&str, usize> = declared.enumerate().map(|(rung, module)| (module, rung)).collect();
    assert!(rung.len() > 15, "the modules of lib.rs were not found");
    let mut imports = 0;
    for (module, own) in &rung {
        let file = src.join(format!("{module}.rs"));
        let file = if file.exists() { file } else { src.join(module).join("mod.rs") };
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        // Comments may point anywhere.
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (other, rung) in &rung {
            let named =
                [format!("crate::{other}::"), format!(" {other}::"), format!(" {other},"), format!("{{{other}::")];
            let uses = code.split("use ").any(|part| {
                let part = part.split(';').next().unwrap();
                part.starts_with("crate::") && named.iter().any(|name| part.contains(name))
            });
            imports += usize::from(uses);
            assert!(!uses || rung <= own, "{module} imports from {other}, which comes after it");
        }
    }
    assert!(imports > 30, "imports were not found: {imports}");
}
