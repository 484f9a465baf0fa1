//! Patches addresses into the copied sections ("System V ABI, AMD64 supplement", table 4.9).

use super::CodeError;
use super::image::{Elf, Image, Target, malformed, unsupported};
use object::elf;
use object::{Object, ObjectSection, Relocation, RelocationFlags, RelocationTarget};

/// Applies every relocation of the kept sections to `memory`, which the image has been copied into and which will not
/// move.
pub(super) fn apply(objects: &[Elf<'_>], image: &Image<'_>, memory: &mut [u8]) -> Result<(), CodeError> {
    for (object, file) in objects.iter().enumerate() {
        for section in file.sections() {
            let Some(begin) = image.section(object, section.index()) else { continue };
            let end = begin + section.size() as usize;
            for (offset, relocation) in section.relocations() {
                let target = target_of(object, file, image, &relocation)?;
                let place = begin.saturating_add(usize::try_from(offset).unwrap_or(usize::MAX));
                patch(image, &mut memory[..end], place, target, &relocation).map_err(|fault| match fault {
                    Fault::UnknownType(r_type) => unsupported(object, format!("relocation type {r_type}")),
                    Fault::OutOfReach => match section.name() {
                        Ok(name) => CodeError::OutOfReach { object, section: name.to_owned() },
                        Err(error) => malformed(object, error),
                    },
                })?;
            }
        }
    }
    Ok(())
}

fn target_of(object: usize, file: &Elf<'_>, image: &Image<'_>, relocation: &Relocation) -> Result<Target, CodeError> {
    match relocation.target() {
        RelocationTarget::Symbol(symbol) => image.resolve(object, file, symbol),
        _ => Err(unsupported(object, "a relocation without a symbol")),
    }
}

/// Why a field could not be patched.
enum Fault {
    UnknownType(u32),
    OutOfReach,
}

/// Writes the field at `place`, which must lie in `memory`.
fn patch(
    image: &Image<'_>,
    memory: &mut [u8],
    place: usize,
    target: Target,
    relocation: &Relocation,
) -> Result<(), Fault> {
    let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err(Fault::UnknownType(0)) };
    let base = memory.as_ptr() as i64;
    let value = |from: i64, to: usize| {
        (to as i64).checked_add(relocation.addend()).and_then(|to| to.checked_sub(from)).ok_or(Fault::OutOfReach)
    };
    let relative = |to: usize| value(place as i64, to);
    match r_type {
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => write_word(memory, place, relative(image.direct(target))?),
        elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
            write_word(memory, place, relative(image.slot(target).ok_or(Fault::OutOfReach)?)?)
        }
        elf::R_X86_64_PC64 => write(memory, place, &relative(image.direct(target))?.to_le_bytes()),
        elf::R_X86_64_64 => write(memory, place, &value(-base, image.direct(target))?.to_le_bytes()),
        other => Err(Fault::UnknownType(other.0)),
    }
}

fn write_word(memory: &mut [u8], place: usize, value: i64) -> Result<(), Fault> {
    let value = i32::try_from(value).map_err(|_| Fault::OutOfReach)?;
    write(memory, place, &value.to_le_bytes())
}

fn write(memory: &mut [u8], place: usize, bytes: &[u8]) -> Result<(), Fault> {
    let field = memory.get_mut(place..place.saturating_add(bytes.len())).ok_or(Fault::OutOfReach)?;
    field.copy_from_slice(bytes);
    Ok(())
}
