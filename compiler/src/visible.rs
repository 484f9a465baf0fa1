//! Text of others, such that a terminal shows it and does nothing else.
//!
//! Names and paths may hold characters that move the cursor, change colours or the title, or turn the order of what is read
//! around. Whatever is printed for people shows those as their numbers.

use std::borrow::Cow;

/// The text with control characters, other than line ends and tabs, and with marks that change the direction of writing
/// replaced by `\u{...}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |letter: char| if is_hidden(letter) { letter.escape_unicode().to_string() } else { letter.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// The same for a line of a program, whose bytes keep their places. The renderer itself replaces what is hidden but for the
/// control characters of two bytes.
pub fn visible_in_place(text: &str) -> Cow<'_, str> {
    let is_wide = |letter: char| letter.is_control() && letter.len_utf8() == 2;
    if text.contains(is_wide) { Cow::Owned(text.replace(is_wide, "\u{b7}")) } else { Cow::Borrowed(text) }
}

fn is_hidden(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (letter.is_control() && !matches!(letter, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_by_its_number() {
        assert_eq!(visible("plain\ttext\n"), "plain\ttext\n");
        assert_eq!(visible("\x1b[31mred\x07"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(visible("a\u{9b}b\u{202e}c\u{7f}\r"), "a\\u{9b}b\\u{202e}c\\u{7f}\\u{d}");
    }
}
