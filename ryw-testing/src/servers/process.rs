//! Other processes, by way of Linux's `/proc`.

use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal`; to a process that is gone, that is no error.
pub(super) fn signal(process: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(process, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(io::Error::from(error)),
    }
}

pub(super) fn children(of: Pid) -> io::Result<Vec<Pid>> {
    Ok(fs::read_dir("/proc")?
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|process| stat(*process).is_some_and(|stat| stat.parent == Some(of)))
        .collect())
}

pub(super) fn is_frozen(process: Pid) -> bool {
    stat(process).is_some_and(|stat| stat.state == 'T')
}

/// Whether it does nothing any more, be it suspended or dead.
pub(super) fn stands(process: Pid) -> bool {
    stat(process).is_none_or(|stat| "TZX".contains(stat.state))
}

struct Stat {
    state: char,
    parent: Option<Pid>,
}

fn stat(process: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// `ID (NAME) STATE PARENT ...`, where a name may have anything in it.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, parent: Pid::from_raw(fields.next()?.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        for (text, expected) in [
            ("7 (postgres) S 5 5 5 0", Some(('S', 5))),
            ("7 (a b) R 9) T 12 5 5 0", Some(('T', 12))),
            ("7 (postgres) S", None),
            ("", None),
        ] {
            let stat = parse(text).map(|stat| (stat.state, stat.parent.map_or(0, Pid::as_raw_pid)));
            assert_eq!(stat, expected, "{text:?}");
        }
    }
}
