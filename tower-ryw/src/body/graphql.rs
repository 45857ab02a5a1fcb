//! What a GraphQL document does: as much of the grammar as tells operations from fields.

use crate::policy::Intent;

/// Whether the operation that a document is executed for reads. `None` where that can't be told: no document, several
/// operations and no name, a name that is not there.
///
/// One pass over the bytes (GraphQL, October 2021, section 2): strings, block strings and comments are skipped, brackets
/// counted. What stands outside of all brackets names the operations.
pub(super) fn intent(document: &str, operation: Option<&str>) -> Option<Intent> {
    let mut tokens = Tokens { rest: document.strip_prefix('\u{feff}').unwrap_or(document).as_bytes() };
    let mut found: Option<Intent> = None;
    let mut count = 0_usize;
    loop {
        let (intent, name) = match tokens.next() {
            Token::End => break,
            Token::Open(b'{') => {
                tokens.close(b'}')?;
                (Intent::Read, None)
            }
            Token::Name(b"fragment") => {
                tokens.definition()?;
                continue;
            }
            Token::Name(kind) => {
                let intent = match kind {
                    b"query" => Intent::Read,
                    b"mutation" | b"subscription" => Intent::Write,
                    _ => return None,
                };
                (intent, tokens.definition()?)
            }
            Token::Open(_) | Token::Close(_) | Token::Other | Token::Broken => return None,
        };
        count += 1;
        match operation {
            Some(wanted) if name != Some(wanted.as_bytes()) => {}
            // A name that is there twice is no document.
            Some(_) if found.is_some() => return None,
            _ => found = Some(intent),
        }
    }
    found.filter(|_| operation.is_some() || count == 1)
}

enum Token<'a> {
    Name(&'a [u8]),
    Open(u8),
    Close(u8),
    /// A number, a string, punctuation.
    Other,
    End,
    /// A string that does not end.
    Broken,
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The rest of a definition, up to its selection set and with it; its name, when one comes first.
    fn definition(&mut self) -> Option<Option<&'a [u8]>> {
        let mut first = true;
        let mut name = None;
        loop {
            match self.next() {
                Token::Name(text) if first => name = Some(text),
                Token::Name(_) | Token::Other => {}
                Token::Open(b'{') => {
                    self.close(b'}')?;
                    return Some(name);
                }
                // Variables and arguments may hold braces of their own.
                Token::Open(open) => self.close(if open == b'(' { b')' } else { b']' })?,
                Token::Close(_) | Token::End | Token::Broken => return None,
            }
            first = false;
        }
    }

    /// Up to the bracket that closes the one that was just opened.
    fn close(&mut self, with: u8) -> Option<()> {
        // Their kinds too, so that what no server would execute is not taken for a read.
        let mut open = vec![with];
        while let Some(expected) = open.last().copied() {
            match self.next() {
                Token::Open(b'{') => open.push(b'}'),
                Token::Open(b'(') => open.push(b')'),
                Token::Open(_) => open.push(b']'),
                Token::Close(close) if close == expected => drop(open.pop()),
                Token::Close(_) | Token::End | Token::Broken => return None,
                Token::Name(_) | Token::Other => {}
            }
        }
        Some(())
    }

    fn next(&mut self) -> Token<'a> {
        self.skip();
        let Some(first) = self.rest.first().copied() else { return Token::End };
        if first == b'"' {
            return self.string();
        }
        let length = match first {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let ends = |byte: &u8| !(*byte == b'_' || byte.is_ascii_alphanumeric());
                self.rest.iter().position(ends).unwrap_or(self.rest.len())
            }
            _ => 1,
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        match first {
            b'{' | b'(' | b'[' => Token::Open(first),
            b'}' | b')' | b']' => Token::Close(first),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => Token::Name(token),
            _ => Token::Other,
        }
    }

    /// White space, commas and comments.
    fn skip(&mut self) {
        loop {
            let blank = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',');
            let start = self.rest.iter().position(blank).unwrap_or(self.rest.len());
            self.rest = &self.rest[start..];
            if self.rest.first() != Some(&b'#') {
                return;
            }
            let end = self.rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
        }
    }

    fn string(&mut self) -> Token<'a> {
        if let Some(mut block) = self.rest.strip_prefix(b"\"\"\"") {
            loop {
                if let Some(rest) = block.strip_prefix(b"\"\"\"") {
                    self.rest = rest;
                    return Token::Other;
                }
                let escaped = block.starts_with(b"\\\"\"\"");
                let Some(rest) = block.get(if escaped { 4 } else { 1 }..) else { return Token::Broken };
                block = rest;
            }
        }
        let mut at = 1;
        loop {
            match self.rest.get(at) {
                Some(b'"') => {
                    self.rest = &self.rest[at + 1..];
                    return Token::Other;
                }
                Some(b'\\') => at += 2,
                Some(b'\r' | b'\n') | None => return Token::Broken,
                Some(_) => at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, operation: Option<&str>, expected: Option<Intent>) {
        assert_eq!(intent(document, operation), expected, "{document:?} {operation:?}");
    }

    #[test]
    fn queries_read_and_all_else_writes() {
        let (read, write) = (Some(Intent::Read), Some(Intent::Write));
        for (document, expected) in [
            ("{ note(id: 7) { text } }", read),
            ("query { note }", read),
            ("query Note($id: ID! = \"}\") @cached(for: {s: 1}) { note(id: $id) { text } }", read),
            ("mutation { put }", write),
            ("mutation Put { put }", write),
            ("subscription { notes }", write),
            ("\u{feff}# mutation\n,query{a}", read),
            ("query { a(b: \"mutation { put }\") }", read),
            ("query { a(b: \"\\\"}\") } ", read),
            ("query { a(b: \"\"\"}} \\\"\"\" mutation\"\"\") }", read),
            ("fragment F on Note { text } query { note { ...F } }", read),
            ("fragment F on Note { text } mutation { put { ...F } }", write),
            ("query { mutation { put } }", read),
            ("query{mutation}", read),
        ] {
            check(document, None, expected);
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_told() {
        for document in [
            "",
            "fragment F on Note { text }",
            "query",
            "query {",
            "query { a } }",
            "query { a ) }",
            "query { a(b: \"} \n\") }",
            "query { a(b: \"\"\"} ) }",
            "queryX { a }",
            "QUERY { a }",
            "type Query { a: Int }",
            "query { a } mutation { put }",
            "{ a } { b }",
            "query A { a } query B { b }",
            "\"query\" { a }",
            "@query { a }",
            "\\",
            "\"\\",
        ] {
            check(document, None, None);
        }
    }

    #[test]
    fn of_several_the_named_one_counts() {
        let document = "query A { a } mutation B { b } query C { c } query C { c } { d }";
        check(document, Some("A"), Some(Intent::Read));
        check(document, Some("B"), Some(Intent::Write));
        check(document, Some("C"), None);
        check(document, Some("D"), None);
        check("query { a }", Some("A"), None);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("query {{{}", "a {".repeat(1_000_000));
        check(&deep, None, None);
    }
}
