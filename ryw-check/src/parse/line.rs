//! From the text of a line to its fields.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::{
    Function, Line, Outcome,
    value::{Scalar, Text},
};
use crate::error::Problem;

/// Every field of the format. A name that is not among them is an error, so that a misspelt `level` weakens no promise.
const FIELDS: [&str; 16] =
    ["id", "s", "tab", "f", "k", "v", "val", "ver", "prev", "inv", "ret", "out", "msg", "level", "node", "epoch"];

/// Of a wrong name, no more is repeated.
const LONGEST_NAME: usize = 32;

/// Reads one line; on failure also says in which column.
pub(crate) fn parse_line(text: &str) -> Result<Line<'_>, (usize, Problem)> {
    let mut field = "?";
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = LineSeed { field: &mut field }.deserialize(&mut json).and_then(|line| json.end().map(|()| line));
    parsed.map_err(|error| (error.column(), Problem::Json { field, reason: reason(&error) }))
}

/// The parser's message without its place, which is told apart.
fn reason(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(place) = message.rfind(" at line ") {
        message.truncate(place);
    }
    message
}

struct LineSeed<'f> {
    field: &'f mut &'static str,
}

impl<'de> DeserializeSeed<'de> for LineSeed<'_> {
    type Value = Line<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LineSeed<'_> {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the fields of an operation")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut line = Line::default();
        let mut seen = 0_u32;
        while let Some(Text(name)) = entries.next_key()? {
            *self.field = "?";
            let Some(at) = FIELDS.iter().position(|field| *field == name) else {
                let name: String = name.chars().take(LONGEST_NAME).collect();
                return Err(A::Error::custom(format!("the format has no field {name:?}")));
            };
            *self.field = FIELDS[at];
            if seen & (1 << at) != 0 {
                return Err(A::Error::custom("given twice"));
            }
            seen |= 1 << at;
            match FIELDS[at] {
                "id" => line.id = Some(entries.next_value()?),
                "s" => line.s = text(&mut entries)?,
                "tab" => line.tab = entries.next_value()?,
                "f" => line.f = Some(word(&mut entries, function)?),
                "k" => line.k = text(&mut entries)?,
                "v" => line.v = Some(entries.next_value()?),
                "val" => line.val = Some(entries.next_value()?),
                "ver" => line.ver = entries.next_value()?,
                "prev" => line.prev = Some(entries.next_value()?),
                "inv" => line.inv = Some(entries.next_value()?),
                "ret" => line.ret = entries.next_value()?,
                "out" => line.out = Some(word(&mut entries, outcome)?),
                "msg" => line.msg = entries.next_value::<Option<Scalar<'_>>>()?,
                "level" => line.level = word(&mut entries, |word| word.parse().ok())?,
                "node" => line.node = text(&mut entries)?,
                _ => line.epoch = entries.next_value()?,
            }
            *self.field = "?";
        }
        Ok(line)
    }
}

fn text<'de, A: MapAccess<'de>>(entries: &mut A) -> Result<Option<std::borrow::Cow<'de, str>>, A::Error> {
    Ok(entries.next_value::<Option<Text<'de>>>()?.map(|Text(text)| text))
}

fn word<'de, A: MapAccess<'de>, T>(entries: &mut A, known: fn(&str) -> Option<T>) -> Result<T, A::Error> {
    let Text(word) = entries.next_value::<Text<'de>>()?;
    known(&word).ok_or_else(|| A::Error::custom("not one of the words that the format knows"))
}

fn function(word: &str) -> Option<Function> {
    Some(match word {
        "append" => Function::Append,
        "put" => Function::Put,
        "read" => Function::Read,
        "snap" => Function::Snap,
        "send" => Function::Send,
        "recv" => Function::Recv,
        "final" => Function::Final,
        _ => return None,
    })
}

fn outcome(word: &str) -> Option<Outcome> {
    Some(match word {
        "ok" => Outcome::Ok,
        "fail" => Outcome::Fail,
        "info" => Outcome::Info,
        "reset" => Outcome::Reset,
        _ => return None,
    })
}
