//! Text to tree: tokens, a parser that recovers, and the formatter that prints trees back.
//!
//! The way of a text: [`lex`] cuts it into tokens and comments, [`brackets`] gives every bracket its partner (repairing
//! and reporting those that have none) and drops the newlines that mean nothing, the grammar ([`item`], [`statement`],
//! [`clause`], [`expression`]) reads a [`tree::File`] off the token slice. Each stage says what is wrong and goes on, so
//! [`parse`] always returns a tree; it is to be trusted only if there are no errors. Nothing here knows what a name means.
//!
//! Every limit below exists so that no text, however hostile, can exhaust the stack or the memory of whoever walks the
//! tree. A program that meets one is told so by name.

mod brackets;
mod clause;
mod decode;
mod expression;
mod foreign;
mod format;
mod item;
mod lex;
mod limits;
mod statement;
mod stream;
mod token;
pub mod tree;

use crate::diagnostic::Diagnostic;
use crate::source::FileId;
use crate::stack::with_large_stack;
use std::cell::RefCell;

pub use decode::decode;
pub use format::format;
pub use limits::{
    MAX_ERRORS, MAX_EXPRESSION_HEIGHT, MAX_FILE_BYTES, MAX_IDENTIFIER_BYTES, MAX_NESTING, MAX_TOKENS, first_errors,
};

/// What a text turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The tree: complete if there are no errors, otherwise what could be read.
    pub file: tree::File,
    /// What is wrong, in order of place; at most [`MAX_ERRORS`].
    pub errors: Vec<Diagnostic>,
}

/// Reads one source text. Never fails: what cannot be read is reported in [`Parsed::errors`] and left out of the tree.
///
/// The caller's stack does not matter: the grammar recurses in a thread with room for [`MAX_NESTING`] levels.
pub fn parse(file: FileId, text: &str) -> Parsed {
    with_large_stack(|| parse_here(file, text))
}

fn parse_here(file: FileId, text: &str) -> Parsed {
    if let Some(error) = limits::check_size(file, text.len()) {
        return Parsed { file: tree::File::default(), errors: vec![error] };
    }
    let mut lexed = lex::lex(file, text);
    let (tokens, mut errors) = brackets::pair(file, text, lexed.tokens);
    errors.append(&mut lexed.errors);
    let found = RefCell::new(Vec::new());
    let tree = item::file(stream::Tokens::new(file, text, &tokens, &found));
    errors.append(&mut found.into_inner());
    Parsed { file: tree, errors: limits::first_errors(errors) }
}
