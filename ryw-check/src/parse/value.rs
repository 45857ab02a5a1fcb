//! Values: integers, strings, and what a read returned.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// An integer or a string: a written value, or a message's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scalar<'a> {
    Int(i64),
    Text(Cow<'a, str>),
}

/// What a read returned.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading<'a> {
    Null,
    One(Scalar<'a>),
    List(Vec<Scalar<'a>>),
    Keys(Vec<(Cow<'a, str>, Reading<'a>)>),
}

/// A string that borrows from the line when it has no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(from)? {
            Scalar::Text(text) => Ok(Self(text)),
            Scalar::Int(_) => Err(D::Error::custom("expected a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Reading::deserialize(from)? {
            Reading::One(value) => Ok(value),
            _ => Err(D::Error::custom("expected an integer or a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Reading<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ReadingVisitor)
    }
}

struct ReadingVisitor;

impl<'de> Visitor<'de> for ReadingVisitor {
    type Value = Reading<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, a string, null, a list or an object of these")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Reading::Null)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Reading::One(Scalar::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        let value = i64::try_from(value).map_err(|_| E::custom("the integer is larger than 2^63-1"))?;
        Ok(Reading::One(Scalar::Int(value)))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Reading::One(Scalar::Text(Cow::Borrowed(value))))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Reading::One(Scalar::Text(Cow::Owned(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Reading::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut keys: Vec<(Cow<'de, str>, Reading<'de>)> = Vec::new();
        while let Some((Text(key), reading)) = entries.next_entry()? {
            if matches!(reading, Reading::Keys(_)) {
                return Err(A::Error::custom("an object in an object"));
            }
            keys.push((key, reading));
        }
        Ok(Reading::Keys(keys))
    }
}
