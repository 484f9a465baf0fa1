//! The standard library as its sources define it, for tests that hold for all of it.

use crate::program;
use trainc::{
    source::SourceMap,
    syntax::tree::{Definition, Item},
};

/// The definitions of a file of the library, each with its text.
pub fn definitions(file: &str) -> Vec<(Definition, String)> {
    let mut sources = SourceMap::default();
    let text = program::read(&format!("compiler/std/{file}.train"));
    let parsed = trainc::syntax::parse(sources.add(file, &text), &text);
    let definitions = parsed.file.items.into_iter().filter_map(|item| match item {
        Item::Definition(definition) => Some(definition),
        _ => None,
    });
    let with_text = |d: Definition| {
        let own = text[d.span.start as usize..d.span.end as usize].to_owned();
        (d, own)
    };
    definitions.map(with_text).collect()
}
