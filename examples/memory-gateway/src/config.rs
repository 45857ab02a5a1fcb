//! The command line.

use std::{fmt, path::PathBuf, time::Duration};

use axum::http::{HeaderValue, Uri};
use clap::{Args, Parser, Subcommand};

/// A key-value service whose reads go to replicas that lag, and nobody sees stale data they wrote themselves.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Where to listen
    #[arg(long, global = true, default_value = "127.0.0.1:8080", value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen: String,

    /// Admit pages of this origin, like http://localhost:3000, with their cookies (CORS); repeatable
    #[arg(long, global = true, value_name = "ORIGIN", value_parser = origin)]
    pub(crate) allow_origin: Vec<HeaderValue>,

    /// Give browsers __Host-ryw, which they keep over https and from localhost only [default: ryw, over plain http]
    #[arg(long, global = true)]
    pub(crate) secure_cookie: bool,

    /// Make one in so many reads of replicas again on the primary, and tell where their sessions were shown too little
    /// [default: none]
    #[arg(long, global = true, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) spot_check_one_in: Option<u32>,

    #[command(flatten)]
    pub(crate) console: ConsoleOptions,

    #[command(flatten)]
    pub(crate) backend: BackendOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until interrupted (the default)
    Serve,
    /// Drive load without the layer, with a time window, and with tower-ryw, and print what each lets through
    Demo(DemoOptions),
}

#[derive(Args, Debug)]
pub(crate) struct ConsoleOptions {
    /// Show operators a page here, at /ryw [default: none]
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) console: Option<String>,

    /// A file with the secret that the page asks for as a password, at least 16 bytes; without one it is shown on this machine only
    #[arg(long, global = true, value_name = "FILE", requires = "console")]
    pub(crate) console_token_file: Option<PathBuf>,
}

/// A name or a number, and a port. What a name stands for is asked when it is bound.
fn address(text: &str) -> Result<String, String> {
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', '/']),
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("give a host and a port, like localhost:8080, 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".into()),
    }
}

/// As browsers write it: anything else would admit nobody.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let uri: Option<Uri> = text.parse().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?.as_str())));
    match parts.map(|(scheme, authority)| format!("{scheme}://{authority}").to_ascii_lowercase()) {
        Some(origin) if origin == text && !text.contains('@') => HeaderValue::from_str(text).map_err(|e| e.to_string()),
        _ => Err("an origin is like https://app.example.com or http://localhost:3000, without a path".into()),
    }
}

/// Without any of these: a store in this process, whose replicas apply its log late.
#[derive(Args)]
pub(crate) struct BackendOptions {
    /// Replicas of the store in this process [default: 2]
    #[arg(long, global = true, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=16))]
    #[arg(conflicts_with_all = ["primary", "postgres"])]
    pub(crate) replicas: Option<u8>,

    /// How late replicas are on average, in ms [default: 150]; with --postgres, how late the second standby applies
    #[arg(long, global = true, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    #[arg(conflicts_with = "primary")]
    lag_ms: Option<u64>,

    /// Use the PostgreSQL primary at this URL
    #[arg(long, global = true, value_name = "URL", requires = "replica", conflicts_with = "postgres")]
    pub(crate) primary: Option<String>,

    /// A standby of it; repeatable
    #[arg(long, global = true, value_name = "URL", requires = "primary", conflicts_with = "postgres")]
    pub(crate) replica: Vec<String>,

    /// Share marks with other instances through the Redis at this URL; repeatable: a majority of several is enough then
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Vec<String>,

    /// Start a PostgreSQL primary and two standbys of its own, in a temporary folder
    #[arg(long, global = true)]
    pub(crate) postgres: bool,
}

/// Without the URLs, which hold passwords.
impl fmt::Debug for BackendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendOptions").field("postgres", &self.postgres).finish_non_exhaustive()
    }
}

impl BackendOptions {
    pub(crate) fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_ms.unwrap_or(150))
    }
}

#[derive(Args, Debug)]
pub(crate) struct DemoOptions {
    /// Concurrent sessions of each kind
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) sessions: u16,

    /// How long to drive load, in seconds
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,

    /// Fewest stale reads without the layer for the run to prove anything
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pub(crate) min_stale: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_flags_are_named() {
        for (arguments, parts) in [
            (&["--postgres", "--primary", "x", "--replica", "y"][..], ["--postgres", "cannot be used with"]),
            (&["--primary", "x"], ["--replica", "required"]),
            (&["--replica", "x"], ["--primary", "required"]),
            (&["--primary", "x", "--replica", "y", "--lag-ms", "5"], ["--lag-ms", "cannot be used with"]),
            (&["--postgres", "--replicas", "2"], ["--replicas", "cannot be used with"]),
            (&["--replicas", "0"], ["--replicas", "1..=16"]),
            (&["--lag-ms", "-5"], ["-5", "unexpected argument"]),
            (&["--lag-ms", "soon"], ["--lag-ms", "invalid digit"]),
            (&["--listen", "8080"], ["--listen", "localhost:8080"]),
            (&["--listen", "localhost"], ["--listen", "localhost:8080"]),
            (&["--listen", "::1:8080"], ["--listen", "[::1]:8080"]),
            (&["--listen", "http://localhost:8080"], ["--listen", "localhost:8080"]),
            (&["--listen", "localhost:http"], ["--listen", "localhost:8080"]),
            (&["--allow-origin", "*"], ["--allow-origin", "without a path"]),
            (&["--allow-origin", "https://app.example.com/"], ["--allow-origin", "without a path"]),
            (&["--allow-origin", "app.example.com"], ["--allow-origin", "https://app.example.com"]),
            (&["demo", "--seconds", "0"], ["--seconds", "1..=3600"]),
            (&["--spot-check-one-in", "0"], ["--spot-check-one-in", "0 is not in"]),
            (&["--console", "9090"], ["--console", "a host and a port"]),
            (&["--console-token-file", "secret"], ["--console", "required"]),
            (&["fly"], ["fly", "unrecognized subcommand"]),
        ] {
            let all = std::iter::once("memory-gateway").chain(arguments.iter().copied());
            let error = Cli::try_parse_from(all).map(drop).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn options_may_stand_before_or_after_the_command() {
        for arguments in [["demo", "--lag-ms", "7"], ["--lag-ms", "7", "demo"]] {
            let cli = Cli::parse_from(std::iter::once("memory-gateway").chain(arguments));
            assert!(matches!(cli.command, Some(Command::Demo(_))));
            assert_eq!(cli.backend.lag(), Duration::from_millis(7));
        }
    }
}
