//! Reading a history, line by line, from any number of files.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, Read as _},
};

use crate::{
    error::{InputError, Problem, field},
    history::{Atom, History, Key, KeyKind, NEVER, NONE, Op, Seen, Value, Values},
    parse::{Function, Line, Outcome, Reading, Scalar, parse_line},
};

/// The most bytes that a line may have when nothing else is said: 16 MiB.
pub const MAX_LINE: usize = 16 << 20;

/// The most operations of a history.
const MAX_OPS: usize = i32::MAX as usize;

/// Reads histories. Several files are parts of one history: their ids are distinct and their clock is the same.
///
/// Memory is bounded by what the operations need; at most one line is held as text.
#[derive(Debug)]
pub struct Loader {
    history: History,
    values: Values,
    messages: HashMap<Atom, u32>,
    files: Vec<String>,
    places: Vec<(u32, u32)>,
    ids: HashSet<i64>,
    last_id: Option<i64>,
    max_line: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            history: History::default(),
            values: Values::default(),
            messages: HashMap::new(),
            files: Vec::new(),
            places: Vec::new(),
            ids: HashSet::new(),
            last_id: None,
            max_line: MAX_LINE,
        }
    }
}

impl Loader {
    /// The most bytes a line may have. Default: [`MAX_LINE`].
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// Reads one file to its end. Empty lines are skipped.
    ///
    /// # Errors
    ///
    /// Says which line, column and field can't be used.
    pub fn read(&mut self, file: &str, mut input: impl BufRead) -> Result<(), InputError> {
        self.files.push(file.to_owned());
        let mut bytes = Vec::new();
        let mut number = 0;
        loop {
            bytes.clear();
            number += 1;
            let at = |column, problem| InputError { file: file.to_owned(), line: number, column, problem };
            let limit = self.max_line as u64 + 1;
            (&mut input).take(limit).read_until(b'\n', &mut bytes).map_err(|error| at(0, Problem::Read(error)))?;
            if bytes.is_empty() {
                return Ok(());
            }
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            if bytes.len() > self.max_line {
                return Err(at(0, Problem::TooLong(self.max_line)));
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| at(error.valid_up_to() + 1, Problem::NotUtf8))?;
            if text.trim().is_empty() {
                continue;
            }
            let line = parse_line(text).map_err(|(column, problem)| at(column, problem))?;
            self.line(line, number).map_err(|problem| at(0, problem))?;
        }
    }

    /// The history, once all files have been read.
    ///
    /// # Errors
    ///
    /// When a message was received that nobody sent.
    pub fn finish(self) -> Result<History, InputError> {
        for (op, place) in self.history.ops.iter().zip(&self.places) {
            if op.f == Function::Recv && self.history.sends[op.msg as usize] == NONE {
                let file = self.files[place.0 as usize].clone();
                let problem = field("msg", "no `send` names this message; record the sender's operation too");
                return Err(InputError { file, line: place.1 as usize, column: 0, problem });
            }
        }
        Ok(self.history)
    }

    fn line(&mut self, line: Line<'_>, number: usize) -> Result<(), Problem> {
        if self.history.ops.len() >= MAX_OPS {
            return Err(Problem::TooMany(MAX_OPS));
        }
        let id = line.id.ok_or(field("id", "is missing"))?;
        let f = line.f.ok_or(field("f", "is missing"))?;
        let last = f == Function::Final;
        let out = match line.out {
            Some(out) => out,
            None if last => Outcome::Ok,
            None => return Err(field("out", "is missing")),
        };
        let inv = match line.inv {
            Some(inv) => inv,
            None if last => NEVER,
            None => return Err(field("inv", "is missing")),
        };
        let answered = matches!(out, Outcome::Ok | Outcome::Reset);
        let ret = line.ret.unwrap_or(NEVER);
        if answered && !last && ret == NEVER {
            return Err(field("ret", "an operation that was answered has returned; `ok` and `reset` need a time"));
        }
        if ret < inv && !last {
            return Err(field("ret", "is before `inv`"));
        }
        if line.s.is_none() && !last {
            return Err(field("s", "is missing"));
        }
        self.new_id(id)?;
        let mut op = Op {
            id,
            inv,
            ret,
            epoch: line.epoch,
            session: if last { NONE } else { self.history.sessions.number(line.s.as_deref().unwrap_or("")) },
            node: line.node.as_deref().map_or(NONE, |node| self.history.nodes.number(node)),
            target: self.history.seen.len() as u32,
            count: 0,
            msg: NONE,
            f,
            out,
            level: line.level,
        };
        let number_of_op = self.history.ops.len() as u32;
        match f {
            Function::Append | Function::Put => op.target = self.write(&line, f, number_of_op)?,
            Function::Send | Function::Recv => op.msg = self.message(&line, f, number_of_op)?,
            Function::Read | Function::Final if answered => {
                let key = line.k.as_deref().ok_or(field("k", "is missing"))?;
                match &line.val {
                    Some(Reading::Keys(_)) => return Err(field("val", "an object is what `snap` returns")),
                    Some(reading) => op.count = self.reading(key, reading, line.ver, number_of_op)?,
                    None if out == Outcome::Ok => return Err(field("val", "is missing")),
                    None => {}
                }
            }
            Function::Snap if answered => match &line.val {
                Some(Reading::Keys(keys)) => {
                    for (key, reading) in keys {
                        op.count += self.reading(key, reading, None, number_of_op)?;
                    }
                    let own = &self.history.seen[op.target as usize..];
                    let distinct: HashSet<u32> = own.iter().map(|seen| seen.key).collect();
                    if distinct.len() < own.len() {
                        return Err(field("val", "names a key twice"));
                    }
                }
                Some(_) => return Err(field("val", "`snap` returns an object of keys")),
                None if out == Outcome::Ok => return Err(field("val", "is missing")),
                None => {}
            },
            Function::Read | Function::Snap | Function::Final => {}
        }
        self.history.ops.push(op);
        self.places.push((self.files.len() as u32 - 1, number as u32));
        Ok(())
    }

    /// Ids that only ever grow need no set.
    fn new_id(&mut self, id: i64) -> Result<(), Problem> {
        let growing = self.last_id.is_none_or(|last| id > last);
        if growing && self.ids.is_empty() {
            self.last_id = Some(id);
            return Ok(());
        }
        if self.ids.is_empty() {
            self.ids = self.history.ops.iter().map(|op| op.id).collect();
        }
        if self.ids.insert(id) { Ok(()) } else { Err(field("id", "another operation has it")) }
    }

    fn write(&mut self, line: &Line<'_>, f: Function, op: u32) -> Result<u32, Problem> {
        let key = line.k.as_deref().ok_or(field("k", "is missing"))?;
        let value = line.v.as_ref().ok_or(field("v", "is missing"))?;
        let kind = if f == Function::Append { KeyKind::List } else { KeyKind::Register };
        let key = self.key(key, kind).ok_or(field("k", "has both lists and registers; use one kind per key"))?;
        let value = self.value(key, value);
        let known = &mut self.history.values[value as usize];
        if known.writer != NONE {
            return Err(field("v", "was written to this key before; written values have to be unique"));
        }
        known.writer = op;
        if kind == KeyKind::Register {
            self.version(value, line.ver, op);
            let prev = match &line.prev {
                None => None,
                Some(Reading::Null) => Some(NONE),
                Some(Reading::One(prev)) => Some(self.value(key, prev)),
                Some(_) => return Err(field("prev", "has to be a value or null")),
            };
            self.history.values[value as usize].prev = prev;
        }
        Ok(value)
    }

    fn message(&mut self, line: &Line<'_>, f: Function, op: u32) -> Result<u32, Problem> {
        let atom = self.atom(line.msg.as_ref().ok_or(field("msg", "is missing"))?);
        let sends = &mut self.history.sends;
        let number = *self.messages.entry(atom).or_insert_with(|| {
            sends.push(NONE);
            sends.len() as u32 - 1
        });
        if f == Function::Send {
            if sends[number as usize] != NONE {
                return Err(field("msg", "was sent before; ids of messages have to be unique"));
            }
            sends[number as usize] = op;
        }
        Ok(number)
    }

    fn reading(&mut self, key: &str, reading: &Reading<'_>, ver: Option<i64>, op: u32) -> Result<u32, Problem> {
        let kind = match reading {
            Reading::List(_) => KeyKind::List,
            Reading::One(_) => KeyKind::Register,
            _ => KeyKind::Unknown,
        };
        let key = self.key(key, kind).ok_or(field("val", "is of another kind than this key's other values"))?;
        let place = match reading {
            Reading::List(items) => {
                let mut node = self.history.keys[key as usize].root;
                for item in items {
                    let value = self.value(key, item);
                    node = self.history.trie.child(node, value);
                }
                node
            }
            Reading::One(value) => {
                let value = self.value(key, value);
                self.version(value, ver, op);
                value
            }
            _ => NONE,
        };
        self.history.seen.push(Seen { key, place });
        Ok(1)
    }

    fn key(&mut self, name: &str, kind: KeyKind) -> Option<u32> {
        let number = self.history.key_names.number(name);
        if number as usize == self.history.keys.len() {
            let root = self.history.trie.root();
            self.history.keys.push(Key { kind: KeyKind::Unknown, root });
        }
        let known = &mut self.history.keys[number as usize].kind;
        if *known == KeyKind::Unknown {
            *known = kind;
        }
        (kind == KeyKind::Unknown || *known == kind).then_some(number)
    }

    fn atom(&mut self, scalar: &Scalar<'_>) -> Atom {
        match scalar {
            Scalar::Int(int) => Atom::Int(*int),
            Scalar::Text(text) => Atom::Text(self.values.texts.number(text)),
        }
    }

    fn value(&mut self, key: u32, scalar: &Scalar<'_>) -> u32 {
        let atom = self.atom(scalar);
        let values = &mut self.history.values;
        *self.values.numbers.entry((key, atom)).or_insert_with(|| {
            values.push(Value { key, writer: NONE, ver: None, ver_from: NONE, prev: None });
            values.len() as u32 - 1
        })
    }

    fn version(&mut self, value: u32, ver: Option<i64>, op: u32) {
        let Some(ver) = ver else { return };
        let known = &mut self.history.values[value as usize];
        match known.ver {
            None => (known.ver, known.ver_from) = (Some(ver), op),
            Some(other) if other != ver => self.history.version_conflicts.push((known.ver_from, op)),
            Some(_) => {}
        }
    }
}

impl History {
    /// Reads a history from a string.
    ///
    /// # Errors
    ///
    /// As [`Loader::read`] and [`Loader::finish`].
    pub fn parse(text: &str) -> Result<Self, InputError> {
        let mut loader = Loader::default();
        loader.read("-", text.as_bytes())?;
        loader.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_only_ever_grow_need_no_set() {
        let mut loader = Loader::default();
        for id in [1, 2, 5] {
            loader.new_id(id).expect("a new id");
        }
        assert!(loader.ids.is_empty());
    }
}
