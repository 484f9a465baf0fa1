//! Loads kernels: relocatable ELF objects are laid out in memory, relocated and made executable, without a linker, a
//! temporary file or `dlopen`.
//!
//! Only what kernels need is understood, and everything else is refused by name: no writable sections, no thread-local
//! storage, no constructors, and no imports besides `memcpy`, `memmove` and `memset`. No page is ever writable and
//! executable at once.

mod error;
mod image;
mod relocate;

pub use error::CodeError;

use crate::abi::StageFn;
use crate::memory::{Mapping, Protection};
use image::Image;
use std::collections::BTreeMap;

/// Machine code in memory, ready to be called.
#[derive(Debug)]
pub struct LoadedCode {
    memory: Mapping,
    /// Offset in `memory` of every function with a global name.
    functions: BTreeMap<String, usize>,
}

impl LoadedCode {
    /// Loads relocatable x86-64 ELF objects; they may refer to each other's global symbols.
    ///
    /// # Errors
    /// When an object is malformed, of a foreign kind, or needs something that kernels may not need.
    pub fn load(objects: &[Vec<u8>]) -> Result<Self, CodeError> {
        let objects = image::parse(objects)?;
        let image = Image::plan(&objects)?;
        let mut memory = Mapping::new(image.bytes()).map_err(CodeError::Memory)?;
        // SAFETY: the mapping is writable, ours alone, and at least as large as the image.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.len()) };
        image.fill(bytes)?;
        relocate::apply(&objects, &image, bytes)?;
        memory.protect(0, image.code_bytes(), Protection::ReadExecute).map_err(CodeError::Memory)?;
        memory
            .protect(image.code_bytes(), memory.len() - image.code_bytes(), Protection::Read)
            .map_err(CodeError::Memory)?;
        Ok(Self { memory, functions: image.into_functions() })
    }

    /// The function of that name; what it computes, and that it has this type, is the compiler's promise.
    pub fn symbol(&self, name: &str) -> Option<StageFn> {
        let offset = *self.functions.get(name)?;
        // SAFETY: the offset lies within executable pages of the mapping. Calling is unsafe and left to the caller.
        Some(unsafe { std::mem::transmute::<*mut u8, StageFn>(self.memory.as_ptr().add(offset)) })
    }
}

/// Names of the entries that a PTX text defines.
pub(crate) fn ptx_entries(ptx: &str) -> Vec<String> {
    let of = |line: &str| {
        let rest = line.trim_start().strip_prefix(".visible")?.trim_start().strip_prefix(".entry")?;
        Some(rest.trim().trim_end_matches('(').to_owned())
    };
    ptx.lines().filter_map(of).collect()
}

/// Names of the functions that objects define, without loading them.
///
/// # Errors
/// When an object is malformed.
pub fn defined_functions(objects: &[Vec<u8>]) -> Result<std::collections::BTreeSet<String>, CodeError> {
    let objects = image::parse(objects)?;
    Ok(Image::plan(&objects)?.into_functions().into_keys().collect())
}
