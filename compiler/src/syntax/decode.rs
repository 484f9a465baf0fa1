//! Bytes to text.

use super::limits;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// The text of a source file: UTF-8, without byte order mark, every line ended by `\n` alone. Places in an error count
/// bytes of the file as `String::from_utf8_lossy` shows it; up to the error those are the bytes of the file itself.
///
/// # Errors
/// `E0116` if the bytes are not UTF-8 or hold a zero byte, `E0110` if there are too many.
pub fn decode(file: FileId, bytes: &[u8]) -> Result<String, Box<Diagnostic>> {
    if let Some(error) = limits::check_size(file, bytes.len()) {
        return Err(Box::new(error));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| not_text(file, bytes, error.valid_up_to()))?;
    if let Some(zero) = text.find('\0') {
        return Err(not_text(file, bytes, zero));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(text.replace("\r\n", "\n"))
}

fn not_text(file: FileId, bytes: &[u8], place: usize) -> Box<Diagnostic> {
    let span = Span { file, start: place as u32, end: place as u32 };
    let byte = bytes[place];
    let guess = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16: save it as UTF-8",
        _ if byte == 0 => "it holds a zero byte, so it is probably not a text file: check the path",
        _ => "save it as UTF-8; if it is not a `.train` file, check the path",
    };
    Box::new(
        Diagnostic::error("E0116", span, "this file is not UTF-8 text")
            .label(format!("byte {place} of the file is 0x{byte:02x}"))
            .help(guess),
    )
}
