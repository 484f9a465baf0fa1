//! Tokens of PTX (PTX ISA, chapter "Syntax").

use super::PtxError;

/// A token; words keep their spelling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// An identifier: opcode, register (`%r1`), label (`$L_1`) or symbol.
    Word(&'a str),
    /// A dot and what follows it without space: `.global`, `.shared::cta`, `.8x8`.
    Dot(&'a str),
    /// An integer; negative ones are `-` and an integer.
    Integer(u64),
    /// `0f3F800000`: the bits of an f32.
    Single(u32),
    /// `0d3FF0000000000000` or a decimal fraction: the bits of an f64.
    Double(u64),
    /// A string without its quotes.
    Text(&'a str),
    /// Any other single character.
    Sign(char),
}

/// The tokens of `source`, each with its line.
pub fn tokens(source: &str) -> Result<Vec<(Token<'_>, u32)>, PtxError> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next()? {
        tokens.push((token, lexer.line));
    }
    Ok(tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::new(self.line, message)
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Skips `length` bytes and counts their line ends.
    fn skip(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count() as u32;
        self.at += length;
    }

    fn skip_blank(&mut self) -> Result<(), PtxError> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\0').len();
            self.skip(blank);
            let rest = self.rest();
            if rest.starts_with("//") {
                self.skip(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").ok_or_else(|| self.error("this comment has no end"))?;
                self.skip(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, PtxError> {
        self.skip_blank()?;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let token = match first {
            'a'..='z' | 'A'..='Z' | '_' | '$' | '%' => Token::Word(self.word()),
            '0'..='9' => self.number()?,
            '.' if rest[1..].starts_with(is_word) => {
                self.at += 1;
                Token::Dot(self.take_while(|c| is_word(c) || c == ':'))
            }
            '"' => {
                let end = rest[1..].find('"').ok_or_else(|| self.error("this string has no end"))?;
                self.skip(end + 2);
                Token::Text(&rest[1..end + 1])
            }
            other => {
                self.at += other.len_utf8();
                Token::Sign(other)
            }
        };
        Ok(Some(token))
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        self.take_while(is_word);
        &self.source[start..self.at]
    }

    fn number(&mut self) -> Result<Token<'a>, PtxError> {
        let start = self.at;
        let text = self.take_while(|c| c.is_ascii_alphanumeric());
        let radix = |digits: &str, radix| u64::from_str_radix(digits, radix);
        let value = match text.as_bytes() {
            [b'0', b'f' | b'F', ..] => return self.bits(&text[2..], 8).map(|bits| Token::Single(bits as u32)),
            [b'0', b'd' | b'D', ..] => return self.bits(&text[2..], 16).map(Token::Double),
            [b'0', b'x' | b'X', ..] => radix(text[2..].trim_end_matches('U'), 16),
            [b'0', b'b' | b'B', ..] => radix(text[2..].trim_end_matches('U'), 2),
            [b'0', _, ..] if text[1..].bytes().all(|b| b.is_ascii_digit()) => radix(text, 8),
            _ if self.rest().starts_with('.') && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.at += 1;
                self.take_while(|c| c.is_ascii_alphanumeric());
                let text = &self.source[start..self.at];
                let value: f64 = text.parse().map_err(|_| self.error(format!("`{text}` is not a number")))?;
                return Ok(Token::Double(value.to_bits()));
            }
            _ => radix(text.trim_end_matches('U'), 10),
        };
        value.map(Token::Integer).map_err(|_| self.error(format!("`{text}` is not a number")))
    }

    fn bits(&self, digits: &str, length: usize) -> Result<u64, PtxError> {
        let bits = (digits.len() == length).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        bits.ok_or_else(|| {
            self.error(format!("a floating-point literal has {length} hexadecimal digits, not `{digits}`"))
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}
