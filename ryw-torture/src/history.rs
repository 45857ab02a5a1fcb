//! Writing histories down as `ryw-check` reads them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use parking_lot::Mutex;
use ryw_check::{Function, Operation};
use tokio::time::Instant;

use crate::error::Error;

/// The only writer of one history, with the only clock of the run.
#[derive(Debug)]
pub(crate) struct Writer {
    start: Instant,
    file: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    file: BufWriter<File>,
    /// What answers said besides, by id.
    answers: Option<BufWriter<File>>,
    written: i64,
    /// Every key that somebody wrote to, and whether it is a list.
    keys: BTreeMap<String, bool>,
    failed: Option<std::io::Error>,
}

impl Writer {
    /// A history at `path`, and beside it, where `answers` says so, what each answer said besides.
    pub(crate) fn create(path: &Path, start: Instant, answers: bool) -> Result<Self, Error> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok(BufWriter::with_capacity(1 << 18, file)),
            Err(error) => Err(Error::new(format!("can't write {}", path.display()), error)),
        };
        let answers = answers.then(|| create(&path.with_extension("answers"))).transpose()?;
        Ok(Self {
            start,
            file: Mutex::new(Lines { file: create(path)?, answers, written: 0, keys: BTreeMap::new(), failed: None }),
        })
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes it down and returns its id. An error is kept for [`finish`](Self::finish).
    pub(crate) fn write(&self, line: Operation) -> i64 {
        self.write_with(line, String::new)
    }

    /// The same, with what the answer said besides.
    pub(crate) fn write_with(&self, mut line: Operation, said: impl FnOnce() -> String) -> i64 {
        let mut lines = self.file.lock();
        lines.written += 1;
        line.id = lines.written;
        if let (Function::Append | Function::Put, Some(key)) = (line.f, &line.k)
            && !lines.keys.contains_key(key)
        {
            lines.keys.insert(key.clone(), line.f == Function::Append);
        }
        let written = serde_json::to_writer(&mut lines.file, &line).map_err(Into::into);
        if let Err(error) = written.and_then(|()| lines.file.write_all(b"\n")) {
            lines.failed.get_or_insert(error);
        }
        if let Some(answers) = &mut lines.answers
            && let Err(error) = writeln!(answers, "{} {}", line.id, said())
        {
            lines.failed.get_or_insert(error);
        }
        line.id
    }

    /// Every key that somebody has written to, and whether it is a list.
    pub(crate) fn keys(&self) -> BTreeMap<String, bool> {
        self.file.lock().keys.clone()
    }

    /// How many operations there are.
    pub(crate) fn len(&self) -> i64 {
        self.file.lock().written
    }

    pub(crate) fn finish(&self) -> Result<(), Error> {
        let mut lines = self.file.lock();
        let result = match lines.failed.take() {
            Some(error) => Err(error),
            None => lines.file.flush().and_then(|()| lines.answers.as_mut().map_or(Ok(()), BufWriter::flush)),
        };
        result.map_err(Error::with("the history can't be written"))
    }
}

#[cfg(test)]
mod tests {
    use ryw_check::Value;

    use super::*;

    #[test]
    fn what_is_written_is_what_the_checker_reads() {
        let folder = std::env::temp_dir().join(format!("ryw-torture-history-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("history.jsonl");
        let writer = Writer::create(&path, Instant::now(), true).unwrap();
        let op = |f| Operation { s: "a".into(), k: Some("k".into()), inv: Some(1), ret: Some(2), ..Operation::new(f) };
        writer.write_with(Operation { v: Some(7), ..op(Function::Append) }, || "by r1".into());
        let list = Some(Value::List(vec![7]));
        writer.write(Operation {
            val: list.clone(),
            level: Some(ryw_check::Level::Ryw),
            node: Some("r1".into()),
            ..op(Function::Read)
        });
        let lists = [("k".to_owned(), vec![7])].into();
        writer.write(Operation { val: Some(Value::Snapshot(lists)), k: None, ..op(Function::Snap) });
        writer.write(Operation { k: Some("r".into()), v: Some(1), ver: Some(5), epoch: Some(1), ..op(Function::Put) });
        let register = Some(Value::Register(Some(1)));
        writer.write(Operation { k: Some("r".into()), val: register, ver: Some(5), ..op(Function::Read) });
        writer.write(Operation { k: Some("k".into()), val: list, ..Operation::new(Function::Final) });
        assert_eq!(writer.len(), 6);
        assert_eq!(writer.keys(), [("k".to_owned(), true), ("r".to_owned(), false)].into());
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let answers = std::fs::read_to_string(path.with_extension("answers")).unwrap();
        assert_eq!(answers.lines().next(), Some("1 by r1"));
        std::fs::remove_dir_all(folder).unwrap();
        let history = ryw_check::History::parse(&text).unwrap();
        let report = ryw_check::check(&history, &ryw_check::Options::default());
        assert_eq!((report.ops, report.violations), (6, vec![]));
    }
}
