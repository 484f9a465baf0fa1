//! The table of all diagnostics. A new one needs a line here and a page in `spec/diagnostics/`.
//!
//! Ids never change their meaning and are never used again: `E01xx` text and grammar, `E02xx` names, `E03xx` shapes and
//! kinds, `E04xx` units and constants, `E05xx` definitions, parameters and optimizers, `E06xx` data, `E07xx` clauses of
//! `train` and methods, `E08xx` resources; warnings likewise with `W`.

/// A kind of diagnostic and its manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id, e.g. `E0107`.
    pub id: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// The page, Markdown: `# id: title`, what it means, `## Wrong` with an example and its rendering, `## Right`.
    pub page: &'static str,
}

/// The entry of an id.
pub fn entry(id: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.id == id)
}

macro_rules! catalog {
    ($($id:literal $title:literal)*) => {
        /// All diagnostics, by id.
        pub const CATALOG: &[Entry] = &[$(Entry {
            id: $id,
            title: $title,
            page: include_str!(concat!("../../../spec/diagnostics/", $id, ".md")),
        }),*];
    };
}

catalog! {
    "E0101" "a character that is not part of the language"
    "E0102" "a text without a closing quote"
    "E0103" "a malformed number or text"
    "E0104" "a sign or word of another language"
    "E0105" "a bracket that is never closed"
    "E0106" "a closing bracket too many, or of the wrong kind"
    "E0107" "a missing expression"
    "E0108" "something that does not belong there"
    "E0109" "not an item"
    "E0110" "larger than a limit"
    "E0111" "a missing name"
    "E0112" "a definition or block without its body"
    "E0113" "a declaration that is not complete"
    "E0114" "a lost value"
    "E0115" "a clause without its keyword"
    "E0116" "a file that is not text"
    "E0117" "a malformed shape"
    "E0118" "an unknown unit"
    "E0119" "chained comparisons"
    "E0120" "assignment to something that is not a name"
    "E0121" "an `if` without both values"
    "E0122" "an argument without a name behind one with a name"
    "E0123" "a definition inside a body"
}
