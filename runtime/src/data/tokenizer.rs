//! Text to integers and back.

use super::{DataError, paths};
use crate::artifact::TokenizerSpec;
use std::path::Path;

/// A tokenizer ready for use.
pub enum Tokenizer {
    /// One token per byte; any bytes are fine, UTF-8 or not.
    Bytes,
    /// From a `tokenizer.json`.
    #[cfg(feature = "tokenizers")]
    HuggingFace(Box<tokenizers::Tokenizer>),
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

    /// Number of different tokens.
    pub fn vocabulary(&self) -> u64 {
        match self {
            Tokenizer::Bytes => 256,
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(tokenizer) => tokenizer.get_vocab_size(true) as u64,
        }
    }

    /// The token written after each document: a newline for bytes, the vocabulary's end-of-text token if it has one.
    pub fn separator(&self) -> Option<u32> {
        match self {
            Tokenizer::Bytes => Some(u32::from(b'\n')),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(tokenizer) => END_OF_TEXT.iter().find_map(|name| tokenizer.token_to_id(name)),
        }
    }

    /// The token after which nothing of the document follows, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        match self {
            Tokenizer::Bytes => None,
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(_) => self.separator(),
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
            Tokenizer::HuggingFace(tokenizer) => {
                let text = std::str::from_utf8(text).map_err(|error| {
                    DataError::Tokenizer(format!("the text is not UTF-8 from byte {} on", error.valid_up_to()))
                })?;
                let encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
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
            Tokenizer::HuggingFace(tokenizer) => {
                let encodings = tokenizer.encode_batch_fast(texts, false).map_err(failed)?;
                Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
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
            Tokenizer::HuggingFace(tokenizer) => tokenizer.decode(tokens, true).map_err(failed),
        }
    }
}

#[cfg(feature = "tokenizers")]
fn failed(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer(error.to_string())
}

#[cfg(feature = "tokenizers")]
fn load_json(path: &Path) -> Result<Tokenizer, DataError> {
    let json = std::fs::read(path).map_err(DataError::io(path))?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json)
        .map_err(|error| DataError::file(path, format!("it is not a tokenizer.json: {error}")))?;
    // Files may ask for padding or truncation, which would distort a corpus.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(failed)?;
    Ok(Tokenizer::HuggingFace(Box::new(tokenizer)))
}

#[cfg(not(feature = "tokenizers"))]
fn load_json(path: &Path) -> Result<Tokenizer, DataError> {
    Err(DataError::file(path, "this build has no support for tokenizer.json files (feature `tokenizers`)"))
}
