//! Text to integers and back.

use super::{DataError, paths};
use crate::artifact::TokenizerSpec;
#[cfg(feature = "tokenizers")]
use crate::{
    contained::contained,
    threads::{processors, side_by_side},
};
use std::path::{Path, PathBuf};

/// Largest `tokenizer.json` that is read; those of the largest vocabularies have a tenth of it.
pub(super) const MAX_FILE_BYTES: u64 = 512 << 20;

/// Texts that a thread takes at a time.
#[cfg(feature = "tokenizers")]
const PIECE: usize = 16;

/// A tokenizer ready for use.
pub enum Tokenizer {
    /// One token per byte; any bytes are fine, UTF-8 or not.
    Bytes,
    /// From a `tokenizer.json`.
    #[cfg(feature = "tokenizers")]
    HuggingFace {
        /// As the file describes it, without padding and truncation.
        tokenizer: Box<tokenizers::Tokenizer>,
        /// All ids are below this.
        bound: u64,
    },
}

/// Names under which vocabularies keep the token that ends a document, most usual first.
#[cfg(feature = "tokenizers")]
const END_OF_TEXT: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]"];

impl Tokenizer {
    /// Loads the tokenizer that a program names.
    ///
    /// # Errors
    /// When its file cannot be read or understood.
    pub fn load(spec: &TokenizerSpec, base: &Path) -> Result<Self, DataError> {
        match spec {
            TokenizerSpec::Bytes => Ok(Tokenizer::Bytes),
            TokenizerSpec::HuggingFace { path } => load_json(&paths::resolve(path, base)?),
        }
    }

    /// The file that describes a tokenizer, if there is one.
    ///
    /// # Errors
    /// When its path begins with `~` and there is no home.
    pub fn file(spec: &TokenizerSpec, base: &Path) -> Result<Option<PathBuf>, DataError> {
        match spec {
            TokenizerSpec::Bytes => Ok(None),
            TokenizerSpec::HuggingFace { path } => paths::resolve(path, base).map(Some),
        }
    }

    /// Exclusive bound of the ids. A vocabulary may leave ids out, so that there are fewer tokens than that.
    pub fn bound(&self) -> u64 {
        match self {
            Tokenizer::Bytes => 256,
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { bound, .. } => *bound,
        }
    }

    /// The token written after each document: a newline for bytes, the vocabulary's end-of-text token if it has one.
    pub fn separator(&self) -> Option<u32> {
        match self {
            Tokenizer::Bytes => Some(u32::from(b'\n')),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { tokenizer, .. } => END_OF_TEXT.iter().find_map(|name| tokenizer.token_to_id(name)),
        }
    }

    /// The token after which nothing of the document follows, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Tokenizer::Bytes => None,
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { .. } => self.separator(),
        }
    }

    /// The tokens of one text.
    ///
    /// # Errors
    /// When the tokenizer needs UTF-8 and the text is not, or when it fails.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, DataError> {
        match self {
            Tokenizer::Bytes => Ok(text.iter().map(|&byte| u32::from(byte)).collect()),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { tokenizer, .. } => {
                let text = std::str::from_utf8(text).map_err(|error| {
                    DataError::Tokenizer(format!("the text is not UTF-8 from byte {} on", error.valid_up_to()))
                })?;
                let encoding = contained(|| tokenizer.encode_fast(text, false)).map_err(broken)?.map_err(failed)?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// The tokens of several texts, computed in parallel where the tokenizer can.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_batch(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>, DataError> {
        match self {
            Tokenizer::Bytes => texts.iter().map(|text| self.encode(text.as_bytes())).collect(),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { .. } => {
                let mut encoded: Vec<_> = texts.iter().map(|_| Ok(Vec::new())).collect();
                let pieces = texts.chunks(PIECE).zip(encoded.chunks_mut(PIECE));
                side_by_side(processors(), pieces, |(texts, encoded)| {
                    texts.iter().zip(encoded).for_each(|(text, tokens)| *tokens = self.encode(text.as_bytes()));
                });
                encoded.into_iter().collect()
            }
        }
    }

    /// The text of tokens; bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        match self {
            Tokenizer::Bytes => {
                let bytes: Vec<_> = tokens.iter().map(|&token| token as u8).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace { tokenizer, .. } => {
                contained(|| tokenizer.decode(tokens, true)).map_err(broken)?.map_err(failed)
            }
        }
    }

    /// The text of `tokens` as it goes on after `prompt`, whose tokens come before them.
    ///
    /// What a token looks like depends on those before it: some vocabularies write the space between two words only where there
    /// is a word before. So all are decoded together, and what they share with the prompt's alone is left out. A space with which
    /// the prompt ends is not repeated.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode_after(&self, prompt: &str, prompt_tokens: &[u32], tokens: &[u32]) -> Result<String, DataError> {
        let before = self.decode(prompt_tokens)?;
        let whole = self.decode(&[prompt_tokens, tokens].concat())?;
        let pairs = before.chars().zip(whole.chars());
        let shared: usize = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let text = &whole[shared..];
        let has_space = prompt.ends_with(char::is_whitespace) && !before.ends_with(char::is_whitespace);
        Ok(if has_space { text.trim_start_matches(' ') } else { text }.to_owned())
    }
}

#[cfg(feature = "tokenizers")]
fn failed(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer(error.to_string())
}

#[cfg(feature = "tokenizers")]
fn broken(panic: String) -> DataError {
    DataError::Tokenizer(format!("its tokenizer.json is damaged or not understood: its library gave up ({panic})"))
}

#[cfg(feature = "tokenizers")]
fn load_json(path: &Path) -> Result<Tokenizer, DataError> {
    let json = crate::files::read(path, MAX_FILE_BYTES).map_err(DataError::io(path))?;
    let refuse = |reason: String| DataError::file(path, format!("it is not a tokenizer.json: {reason}"));
    super::charsmap::check(&json).map_err(refuse)?;
    let loaded = contained(|| tokenizers::Tokenizer::from_bytes(json)).map_err(refuse)?;
    let mut tokenizer = loaded.map_err(|error| refuse(error.to_string()))?;
    // Files may ask for padding or truncation, which would distort a corpus.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(failed)?;
    let bound = tokenizer.get_vocab(true).into_values().max().map_or(0, |largest| u64::from(largest) + 1);
    Ok(Tokenizer::HuggingFace { tokenizer: Box::new(tokenizer), bound })
}

#[cfg(not(feature = "tokenizers"))]
fn load_json(path: &Path) -> Result<Tokenizer, DataError> {
    Err(DataError::file(path, "this build has no support for tokenizer.json files (feature `tokenizers`)"))
}
