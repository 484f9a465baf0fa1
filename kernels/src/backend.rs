//! The boundary to the code generator: modules as MLIR text go in, machine code comes out.

use serde::{Deserialize, Serialize};
use trainc_runtime::artifact::Isa;

/// What makes machine code of modules. `trainc_llvm::Llvm` does it in this process.
pub trait Backend {
    /// The machine code of each module, in order. The modules are what this crate has emitted for the instruction set.
    ///
    /// # Errors
    /// The first module's that has no code, or [`CodegenError::Unavailable`].
    fn generate(&self, modules: &[String], isa: Isa, form: Form) -> Result<Vec<Vec<u8>>, CodegenError>;
}

/// The form of machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Text, which is PTX for devices.
    Assembly,
    /// An ELF relocatable object. There is none for devices.
    Object,
}

/// Why a kernel has no code. What MLIR and LLVM refuse is a defect of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CodegenError {
    /// The kernel breaks a rule of [`crate::ir`].
    #[error("kernel `{label}` is malformed: {reason}")]
    Malformed {
        /// The kernel's label.
        label: String,
        /// Which rule.
        reason: String,
    },
    /// MLIR refused the emitted text.
    #[error("MLIR refused the module: {0}")]
    Mlir(String),
    /// LLVM refused the lowered module.
    #[error("LLVM refused the module: {0}")]
    Llvm(String),
    /// The code generator could not be asked, or ended without an answer.
    #[error("{0}")]
    Unavailable(String),
}
