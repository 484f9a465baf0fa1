use std::io;

/// Why machine code was refused.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// Not an ELF file that can be read.
    #[error("object {object} is damaged: {reason}")]
    Malformed {
        /// Position in the list of objects.
        object: usize,
        /// What the reader says.
        reason: String,
    },
    /// Another format, architecture, or an executable instead of an object.
    #[error("object {object} is not a relocatable ELF object for x86-64")]
    Foreign {
        /// Position in the list of objects.
        object: usize,
    },
    /// Something that kernels have no use for.
    #[error("object {object}: {what} is not supported in kernels")]
    Unsupported {
        /// Position in the list of objects.
        object: usize,
        /// The section, symbol or relocation.
        what: String,
    },
    /// A function that neither the objects nor the runtime provide.
    #[error("object {object} needs the function `{name}`, which the runtime does not provide")]
    UnknownImport {
        /// Position in the list of objects.
        object: usize,
        /// The missing symbol.
        name: String,
    },
    /// Two definitions of one name.
    #[error("the symbol `{name}` is defined twice")]
    Duplicate {
        /// The symbol.
        name: String,
    },
    /// A relocation whose value does not fit its field.
    #[error("object {object}: a relocation in `{section}` cannot reach its target")]
    OutOfReach {
        /// Position in the list of objects.
        object: usize,
        /// The section to be patched.
        section: String,
    },
    /// The system gave no memory or refused to make it executable.
    #[error("no memory for machine code: {0}")]
    Memory(#[source] io::Error),
}
