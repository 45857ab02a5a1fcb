//! The little of Redis' protocol (RESP 2) that it takes to give a server commands.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// A list within a list within ... ends somewhere.
const DEEPEST: u32 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
}

impl Reply {
    /// One line for each value; nothing within a list tells where an inner one ends.
    pub(super) fn lines(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Int(int) => int.to_string(),
            Self::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Self::List(list) => list.iter().map(Self::lines).collect::<Vec<_>>().join("\n"),
        }
    }

    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

/// Why there is no [`Reply`].
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// The server's own words.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// No single wait of the connection takes longer than `limit`, which is not zero.
    pub(super) fn open(port: u16, limit: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn command(&mut self, words: &[&[u8]]) -> Result<Reply, Failure> {
        self.0.get_mut().write_all(&encode(words))?;
        decode(&mut self.0, DEEPEST)
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn decode(from: &mut impl BufRead, deepest: u32) -> Result<Reply, Failure> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let line = line.trim_end_matches(['\r', '\n']);
    let (kind, rest) = line.split_at_checked(1).ok_or_else(garbled)?;
    match kind {
        "+" => Ok(Reply::Text(rest.into())),
        "-" => Err(Failure::Refused(rest.to_owned())),
        ":" => Ok(Reply::Int(rest.parse().map_err(|_| garbled())?)),
        "$" => match length(rest)? {
            None => Ok(Reply::Nil),
            Some(length) => {
                let mut text = vec![0; length + 2];
                from.read_exact(&mut text)?;
                text.truncate(length);
                Ok(Reply::Text(text))
            }
        },
        "*" => match length(rest)? {
            None => Ok(Reply::Nil),
            Some(_) if deepest == 0 => Err(garbled().into()),
            Some(length) => (0..length).map(|_| decode(from, deepest - 1)).collect::<Result<_, _>>().map(Reply::List),
        },
        _ => Err(garbled().into()),
    }
}

fn length(text: &str) -> Result<Option<usize>, Failure> {
    match text {
        "-1" => Ok(None),
        _ => text.parse::<u32>().map(|length| Some(length as usize)).map_err(|_| garbled().into()),
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the Redis protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.into())
    }

    #[test]
    fn words_may_have_anything_in_them() {
        assert_eq!(encode(&[b"SET", b"a\r\nb", b""]), b"*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }

    #[test]
    fn replies_are_read() {
        for (bytes, expected) in [
            ("+OK\r\n", text("OK")),
            (":-7\r\n", Reply::Int(-7)),
            ("$-1\r\n", Reply::Nil),
            ("*-1\r\n", Reply::Nil),
            ("$4\r\na\r\nb\r\n", text("a\r\nb")),
            ("*0\r\n", Reply::List(vec![])),
            ("*2\r\n*1\r\n:1\r\n$1\r\nx\r\n", Reply::List(vec![Reply::List(vec![Reply::Int(1)]), text("x")])),
        ] {
            assert_eq!(decode(&mut bytes.as_bytes(), DEEPEST).unwrap(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in ["", "\r\n", "HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "$5\r\nab\r\n", "*1\r\n", "ä\r\n"] {
            assert!(matches!(decode(&mut bytes.as_bytes(), DEEPEST), Err(Failure::Io(_))), "{bytes:?}");
        }
        let deep = "*1\r\n".repeat(100) + ":1\r\n";
        assert!(decode(&mut deep.as_bytes(), DEEPEST).is_err());
        let refused = decode(&mut "*2\r\n:1\r\n-ERR no\r\n".as_bytes(), DEEPEST);
        assert!(matches!(refused, Err(Failure::Refused(text)) if text == "ERR no"));
    }

    #[test]
    fn a_reply_is_one_line_for_each_value() {
        let reply = Reply::List(vec![text("a"), Reply::List(vec![Reply::Int(1), Reply::Nil]), text("b")]);
        assert_eq!(reply.lines(), "a\n1\n\nb");
    }
}
