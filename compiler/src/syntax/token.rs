//! The words of the language.

/// A token: what it is and which bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: u32,
    /// One past the last byte; equal to `start` for tokens that the bracket pass inserted.
    pub end: u32,
}

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier.
    Name,
    /// A word that cannot be a name.
    Reserved(Reserved),
    /// Digits with their suffix.
    Number,
    /// Text in double quotes.
    Text,
    /// A bracket or sign.
    Symbol(Symbol),
    /// The end of a line.
    Newline,
    /// The end of the text.
    End,
    /// Something that the lexer could not read and has reported; the parser takes it for an expression.
    Bad,
}

/// Words that cannot be names, because expressions or statements would become ambiguous. All other words that the
/// grammar knows (`input`, `layer`, `role`, ...) are keywords only where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    And,
    Else,
    If,
    Not,
    Or,
    Param,
    Repeat,
    Then,
}

impl Reserved {
    const ALL: [(&'static str, Reserved); 8] = [
        ("and", Reserved::And),
        ("else", Reserved::Else),
        ("if", Reserved::If),
        ("not", Reserved::Not),
        ("or", Reserved::Or),
        ("param", Reserved::Param),
        ("repeat", Reserved::Repeat),
        ("then", Reserved::Then),
    ];

    /// The reserved word with this spelling.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|(_, reserved)| *reserved)
    }
}

/// Declares the symbols with their spelling, longest first where one begins another: the lexer tries them in order.
macro_rules! symbols {
    ($($name:ident $spelling:literal)*) => {
        /// Brackets and signs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Symbol { $($name),* }

        impl Symbol {
            /// All symbols in the order in which the lexer tries them.
            pub const ALL: &'static [Symbol] = &[$(Symbol::$name),*];

            /// How it is written.
            pub fn spelling(self) -> &'static str {
                match self { $(Symbol::$name => $spelling),* }
            }
        }
    };
}

symbols! {
    EqualEqual "==" NotEqual "!=" LessEqual "<=" GreaterEqual ">=" LeftArrow "<-" RightArrow "->" DotDot ".."
    Equal "=" Less "<" Greater ">" Plus "+" Minus "-" Star "*" Slash "/" Caret "^" Tilde "~" Bar "|" Colon ":"
    Dot "." Comma "," OpenParen "(" CloseParen ")" OpenBracket "[" CloseBracket "]" OpenBrace "{" CloseBrace "}"
}

impl Symbol {
    /// The bracket that closes this one, if this opens.
    pub fn closer(self) -> Option<Symbol> {
        match self {
            Symbol::OpenParen => Some(Symbol::CloseParen),
            Symbol::OpenBracket => Some(Symbol::CloseBracket),
            Symbol::OpenBrace => Some(Symbol::CloseBrace),
            _ => None,
        }
    }

    /// Whether this closes a bracket.
    pub fn closes(self) -> bool {
        matches!(self, Symbol::CloseParen | Symbol::CloseBracket | Symbol::CloseBrace)
    }

    /// Whether a line that ends with this goes on in the next one.
    pub fn continues_line(self) -> bool {
        !matches!(self, Symbol::DotDot) && !self.closes() && self != Symbol::OpenBrace
    }
}
