//! The settings that the environment can make. Read only when asked to.

use std::time::Duration;

use ryw_core::{Keyring, Level};

use crate::{
    error::{ConfigError, ConfigErrorKind},
    layer::RywLayerBuilder,
};

const SECONDS: &str = "are whole seconds, 1 or more";
const BOOL: &str = "are true, false, 1 and 0";

pub(crate) fn apply(
    builder: RywLayerBuilder,
    var: impl Fn(&'static str) -> Option<String>,
) -> Result<RywLayerBuilder, ConfigError> {
    let given = |name| var(name).map(|value| (name, value));

    let mut builder = builder;
    if builder.minimum.is_none() {
        builder = builder.level(Level::Eventual);
    }
    if let Some(level) = given("DEFAULT_CONSISTENCY_LEVEL") {
        let levels = "are EVENTUAL, BOUNDED;max=<ms>, MONOTONIC, RYW, SESSION, CAUSAL and STRONG";
        builder = builder.default_level(level.1.parse().map_err(|_| refused(level, levels))?);
    }
    if let Some(enabled) = given("ENABLE_CONSISTENCY_ENFORCEMENT") {
        builder = builder.enabled(boolean(enabled)?);
    }
    if let Some(debug) = given("ENABLE_CONSISTENCY_DEBUG") {
        builder = builder.log_decisions(boolean(debug)?);
    }
    if let Some(ttl) = given("SESSION_TTL_SECONDS") {
        builder = builder.session_ttl(seconds(ttl)?);
    }
    if let Some(window) = window(&var)? {
        builder = builder.window(window);
    }
    // The local store drops expired marks as it goes, so the interval is checked and has nothing to set.
    given("READ_AFTER_WRITE_CLEANUP_INTERVAL").map(seconds).transpose()?;
    let builder = match var("READ_AFTER_WRITE_CACHE_SIZE") {
        Some(size) => {
            let accepted = "are whole numbers of subjects, 1 or more";
            let parsed = size.parse().ok().filter(|size| *size > 0);
            builder.store_capacity(parsed.ok_or_else(|| refused(("READ_AFTER_WRITE_CACHE_SIZE", size), accepted))?)
        }
        None => builder,
    };
    match var("RYW_TOKEN_KEY") {
        Some(keys) => {
            let named = |source| ConfigErrorKind::KeyVariable { name: "RYW_TOKEN_KEY", source };
            Ok(builder.signing_keys(Keyring::parse(&keys).map_err(named)?))
        }
        None => Ok(builder),
    }
}

/// One setting, two names.
fn window(var: impl Fn(&'static str) -> Option<String>) -> Result<Option<Duration>, ConfigError> {
    let [one, other] = ["RYW_WINDOW_SECONDS", "READ_AFTER_WRITE_WINDOW"];
    let given = |name| var(name).map(|value| seconds((name, value))).transpose();
    match (given(one)?, given(other)?) {
        (Some(a), Some(b)) if a != b => {
            let hint = "they are two names of one setting, and the values differ; set one of them";
            Err(ConfigErrorKind::Conflict { one, other, hint }.into())
        }
        (a, b) => Ok(a.or(b)),
    }
}

fn seconds((name, value): (&'static str, String)) -> Result<Duration, ConfigError> {
    match value.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err(refused((name, value), SECONDS)),
    }
}

fn boolean((name, value): (&'static str, String)) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(refused((name, value), BOOL)),
    }
}

fn refused((name, value): (&'static str, String), accepted: &'static str) -> ConfigError {
    let value = value.chars().take(80).collect();
    ConfigErrorKind::Env { name, value, accepted }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::RywLayer;

    fn error(vars: &'static [(&str, &str)]) -> String {
        let var = |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let layer = apply(RywLayer::builder(), var).and_then(RywLayerBuilder::build);
        layer.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn accepts_the_defaults_and_what_parses() {
        assert_eq!(error(&[]), "");
        assert_eq!(
            error(&[
                ("ENABLE_CONSISTENCY_ENFORCEMENT", "False"),
                ("DEFAULT_CONSISTENCY_LEVEL", "ryw"),
                ("SESSION_TTL_SECONDS", "60"),
                ("RYW_WINDOW_SECONDS", "5"),
                ("READ_AFTER_WRITE_WINDOW", "5"),
                ("READ_AFTER_WRITE_CACHE_SIZE", "1000"),
                ("ENABLE_CONSISTENCY_DEBUG", "1"),
            ]),
            ""
        );
    }

    #[test]
    fn names_the_variable_the_value_and_what_is_accepted() {
        for (vars, parts) in [
            (&[("DEFAULT_CONSISTENCY_LEVEL", "RYWW")], ["DEFAULT_CONSISTENCY_LEVEL", "RYWW", "EVENTUAL"]),
            (&[("RYW_WINDOW_SECONDS", "0")], ["RYW_WINDOW_SECONDS", "\"0\"", "1 or more"]),
            (&[("RYW_WINDOW_SECONDS", "2s")], ["RYW_WINDOW_SECONDS", "2s", "seconds"]),
            (&[("SESSION_TTL_SECONDS", "-1")], ["SESSION_TTL_SECONDS", "-1", "seconds"]),
            (&[("READ_AFTER_WRITE_CLEANUP_INTERVAL", "")], ["READ_AFTER_WRITE_CLEANUP_INTERVAL", "\"\"", "seconds"]),
            (&[("READ_AFTER_WRITE_CACHE_SIZE", "0")], ["READ_AFTER_WRITE_CACHE_SIZE", "\"0\"", "1 or more"]),
            (&[("ENABLE_CONSISTENCY_ENFORCEMENT", "yes")], ["ENABLE_CONSISTENCY_ENFORCEMENT", "yes", "true"]),
        ] {
            let error = error(vars);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let conflict = error(&[("RYW_WINDOW_SECONDS", "5"), ("READ_AFTER_WRITE_WINDOW", "6")]);
        assert!(conflict.contains("RYW_WINDOW_SECONDS") && conflict.contains("READ_AFTER_WRITE_WINDOW"), "{conflict}");
        assert!(!error(&[("RYW_TOKEN_KEY", "1:c2VjcmV0")]).contains("c2VjcmV0"), "a secret is not repeated");
    }
}
