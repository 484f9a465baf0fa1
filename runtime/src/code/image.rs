//! Where each section and symbol of the objects goes: code first, then read-only data, then a table of addresses.
//!
//! ```text
//! | .text* of all objects | stubs | pad to page | .rodata* of all objects | address slots |
//! |<---- read, execute --------------------->|<---- read --------------------------->|
//! ```
//!
//! Every import has a slot holding its absolute address and a stub `jmp [slot]`, because the libraries may lie further
//! away than a 32-bit displacement reaches. Symbols that are addressed through the global offset table get slots too.

use super::CodeError;
use crate::memory::PAGE_BYTES;
use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object, ObjectKind, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SectionIndex, SymbolIndex, SymbolSection,
};
use std::collections::BTreeMap;

/// A parsed object.
pub(super) type Elf<'a> = ElfFile64<'a, Endianness>;

/// `ff 25 disp32`: jump through a slot; padded to eight bytes.
const STUB_BYTES: usize = 8;
const SLOT_BYTES: usize = 8;

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// An offset in the image.
    Inside(usize),
    /// A function of this process; index into [`IMPORTS`].
    Import(usize),
}

/// The functions that LLVM may call on its own account.
const IMPORTS: [&str; 3] = ["memcpy", "memmove", "memset"];

fn import_address(index: usize) -> u64 {
    [libc::memcpy as *const () as u64, libc::memmove as *const () as u64, libc::memset as *const () as u64][index]
}

/// The layout of all objects in one stretch of memory.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// Offset and contents by object and section index.
    sections: BTreeMap<(usize, usize), (usize, &'a [u8])>,
    globals: BTreeMap<String, Target>,
    functions: BTreeMap<String, usize>,
    slots: BTreeMap<Target, usize>,
    stubs: BTreeMap<usize, usize>,
    code_bytes: usize,
    bytes: usize,
}

/// Reads the objects' headers.
pub(super) fn parse(objects: &[Vec<u8>]) -> Result<Vec<Elf<'_>>, CodeError> {
    objects.iter().enumerate().map(|(index, bytes)| parse_one(index, bytes)).collect()
}

fn parse_one(object: usize, bytes: &[u8]) -> Result<Elf<'_>, CodeError> {
    let file = Elf::parse(bytes).map_err(|error| malformed(object, error))?;
    let native = file.architecture() == object::Architecture::X86_64 && file.is_little_endian();
    match native && file.kind() == ObjectKind::Relocatable {
        true => Ok(file),
        false => Err(CodeError::Foreign { object }),
    }
}

pub(super) fn malformed(object: usize, error: object::Error) -> CodeError {
    CodeError::Malformed { object, reason: error.to_string() }
}

pub(super) fn unsupported(object: usize, what: impl Into<String>) -> CodeError {
    CodeError::Unsupported { object, what: what.into() }
}

/// What becomes of a section.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Code,
    ReadOnly,
    /// Not needed to run: debugging, unwinding, notes, empty sections.
    Dropped,
}

impl<'a> Image<'a> {
    /// Assigns every section, stub and slot its place.
    pub(super) fn plan(objects: &[Elf<'a>]) -> Result<Self, CodeError> {
        let mut image = Image {
            sections: BTreeMap::new(),
            globals: BTreeMap::new(),
            functions: BTreeMap::new(),
            slots: BTreeMap::new(),
            stubs: BTreeMap::new(),
            code_bytes: 0,
            bytes: 0,
        };
        let mut cursor = image.place_sections(objects, Role::Code, 0)?;
        let stubs_begin = cursor.next_multiple_of(STUB_BYTES);
        cursor = stubs_begin + IMPORTS.len() * STUB_BYTES;
        image.code_bytes = cursor.next_multiple_of(PAGE_BYTES);
        cursor = image.place_sections(objects, Role::ReadOnly, image.code_bytes)?;
        for (index, file) in objects.iter().enumerate() {
            image.define_globals(index, file)?;
        }
        image.place_slots(objects, stubs_begin, cursor)?;
        Ok(image)
    }

    /// Total size of the image.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Size of the executable front part, whole pages.
    pub(super) fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// The global functions and their offsets.
    pub(super) fn into_functions(self) -> BTreeMap<String, usize> {
        self.functions
    }

    /// Where a section lies, if it was kept.
    pub(super) fn section(&self, object: usize, section: SectionIndex) -> Option<usize> {
        self.sections.get(&(object, section.0)).map(|&(offset, _)| offset)
    }

    /// Offset of the slot that holds the target's address.
    pub(super) fn slot(&self, target: Target) -> Option<usize> {
        self.slots.get(&target).copied()
    }

    /// Where a direct reference to the target leads: an import is reached through its stub.
    pub(super) fn direct(&self, target: Target) -> usize {
        match target {
            Target::Inside(offset) => offset,
            Target::Import(import) => self.stubs[&import],
        }
    }

    /// What symbol `symbol` of object `object` stands for.
    pub(super) fn resolve(&self, object: usize, file: &Elf<'a>, symbol: SymbolIndex) -> Result<Target, CodeError> {
        let symbol = file.symbol_by_index(symbol).map_err(|error| malformed(object, error))?;
        let name = symbol.name().map_err(|error| malformed(object, error))?;
        match symbol.section() {
            SymbolSection::Section(section) if !symbol.is_global() => {
                self.local(object, section, symbol.address(), name)
            }
            SymbolSection::Section(_) | SymbolSection::Undefined => self.global(object, name),
            _ => Err(unsupported(object, format!("the symbol `{name}`"))),
        }
    }

    fn local(&self, object: usize, section: SectionIndex, value: u64, name: &str) -> Result<Target, CodeError> {
        let &(offset, data) = self
            .sections
            .get(&(object, section.0))
            .ok_or_else(|| unsupported(object, format!("a reference to `{name}` in a dropped section")))?;
        // One past the end is allowed: labels may mark the end of a section.
        match usize::try_from(value) {
            Ok(value) if value <= data.len() => Ok(Target::Inside(offset + value)),
            _ => Err(CodeError::Malformed { object, reason: format!("`{name}` lies outside its section") }),
        }
    }

    fn global(&self, object: usize, name: &str) -> Result<Target, CodeError> {
        let import = || IMPORTS.iter().position(|import| *import == name).map(Target::Import);
        let unknown = || CodeError::UnknownImport { object, name: name.to_owned() };
        self.globals.get(name).copied().or_else(import).ok_or_else(unknown)
    }

    fn place_sections(&mut self, objects: &[Elf<'a>], role: Role, begin: usize) -> Result<usize, CodeError> {
        let mut cursor = begin;
        for (index, file) in objects.iter().enumerate() {
            for section in file.sections() {
                if role_of(index, &section)? != role {
                    continue;
                }
                let data = section.data().map_err(|error| malformed(index, error))?;
                let align = usize::try_from(section.align()).unwrap_or(usize::MAX).max(1);
                if align > PAGE_BYTES || !align.is_power_of_two() {
                    return Err(unsupported(index, format!("alignment {align}")));
                }
                cursor = cursor.next_multiple_of(align);
                self.sections.insert((index, section.index().0), (cursor, data));
                cursor += data.len();
            }
        }
        Ok(cursor)
    }

    fn define_globals(&mut self, object: usize, file: &Elf<'a>) -> Result<(), CodeError> {
        for symbol in file.symbols() {
            let SymbolSection::Section(section) = symbol.section() else { continue };
            if !symbol.is_global() || self.section(object, section).is_none() {
                continue;
            }
            let name = symbol.name().map_err(|error| malformed(object, error))?;
            let target = self.local(object, section, symbol.address(), name)?;
            if self.globals.insert(name.to_owned(), target).is_some() {
                return Err(CodeError::Duplicate { name: name.to_owned() });
            }
            if let Target::Inside(offset) = target
                && offset < self.code_bytes
            {
                self.functions.insert(name.to_owned(), offset);
            }
        }
        Ok(())
    }

    fn place_slots(&mut self, objects: &[Elf<'a>], stubs_begin: usize, slots_begin: usize) -> Result<(), CodeError> {
        let mut cursor = slots_begin.next_multiple_of(SLOT_BYTES);
        let mut place = |slots: &mut BTreeMap<Target, usize>, target| {
            slots.entry(target).or_insert_with(|| {
                cursor += SLOT_BYTES;
                cursor - SLOT_BYTES
            });
        };
        for import in 0..IMPORTS.len() {
            self.stubs.insert(import, stubs_begin + import * STUB_BYTES);
            place(&mut self.slots, Target::Import(import));
        }
        for (index, file) in objects.iter().enumerate() {
            for symbol in symbols_through_slots(file) {
                let target = self.resolve(index, file, symbol)?;
                place(&mut self.slots, target);
            }
        }
        self.bytes = cursor;
        Ok(())
    }

    /// Copies the sections and writes stubs and slots; `memory` holds at least [`Self::bytes`] zeroed bytes.
    pub(super) fn fill(&self, memory: &mut [u8]) -> Result<(), CodeError> {
        for &(offset, data) in self.sections.values() {
            memory[offset..offset + data.len()].copy_from_slice(data);
        }
        let base = memory.as_ptr() as u64;
        for (&target, &slot) in &self.slots {
            let address = match target {
                Target::Inside(offset) => base + offset as u64,
                Target::Import(import) => import_address(import),
            };
            memory[slot..slot + SLOT_BYTES].copy_from_slice(&address.to_le_bytes());
        }
        for (&import, &stub) in &self.stubs {
            let slot = self.slots[&Target::Import(import)];
            let displacement = i32::try_from(slot - (stub + 6))
                .map_err(|_| CodeError::OutOfReach { object: 0, section: "stubs".to_owned() })?;
            memory[stub..stub + 2].copy_from_slice(&[0xff, 0x25]);
            memory[stub + 2..stub + 6].copy_from_slice(&displacement.to_le_bytes());
        }
        Ok(())
    }
}

/// Symbols that instructions address through the global offset table.
fn symbols_through_slots<'a>(file: &Elf<'a>) -> Vec<SymbolIndex> {
    let through_slot = |(_, relocation): (u64, object::Relocation)| match (relocation.flags(), relocation.target()) {
        (RelocationFlags::Elf { r_type }, RelocationTarget::Symbol(symbol))
            if [elf::R_X86_64_GOTPCREL, elf::R_X86_64_GOTPCRELX, elf::R_X86_64_REX_GOTPCRELX].contains(&r_type) =>
        {
            Some(symbol)
        }
        _ => None,
    };
    file.sections().flat_map(|section| section.relocations().filter_map(through_slot).collect::<Vec<_>>()).collect()
}

/// Decides by the section's flags, so that no list of names can be incomplete.
fn role_of<'a>(object: usize, section: &impl ObjectSection<'a>) -> Result<Role, CodeError> {
    let name = section.name().map_err(|error| malformed(object, error))?;
    let SectionFlags::Elf { sh_type, sh_flags } = section.flags() else { return Ok(Role::Dropped) };
    let has = |flag: elf::SectionFlags| sh_flags.0 & flag.0 != 0;
    let needless = name == ".eh_frame" || sh_type == elf::SHT_NOTE || sh_type == elf::SHT_X86_64_UNWIND;
    if !has(elf::SHF_ALLOC) || section.size() == 0 || needless {
        return Ok(Role::Dropped);
    }
    // `.data.rel.ro` is writable for a dynamic linker only: here it is relocated before its pages are sealed.
    let sealed = name.starts_with(".data.rel.ro");
    if sh_type != elf::SHT_PROGBITS || has(elf::SHF_TLS) || (has(elf::SHF_WRITE) && !sealed) {
        return Err(unsupported(object, format!("the section `{name}`")));
    }
    Ok(if has(elf::SHF_EXECINSTR) { Role::Code } else { Role::ReadOnly })
}
