//! From MLIR text to machine code: parse and verify, lower to the LLVM dialect, translate, optimise, emit.

mod llvm;

use llvm::Output;
use melior::{
    Context,
    dialect::DialectRegistry,
    ir::Module,
    pass::PassManager,
    utility::{parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes},
};
use std::{cell::RefCell, rc::Rc};
use trainc_runtime::artifact::Isa;

/// Why a kernel has no code. Every case but the first is a defect of this crate, reported instead of aborting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// Everything emitted is vectorised and addressed through plain pointers, so lowering is one conversion a dialect.
const LOWERING: &str = "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,\
    convert-arith-to-llvm,convert-cf-to-llvm,convert-func-to-llvm,convert-nvvm-to-llvm,reconcile-unrealized-casts)";

/// Compiles a module to an ELF object.
pub(crate) fn object(text: &str, isa: Isa) -> Result<Vec<u8>, CodegenError> {
    emit(text, isa, Output::Object)
}

/// Compiles a module to assembly text.
pub(crate) fn assembly(text: &str, isa: Isa) -> Result<String, CodegenError> {
    let bytes = emit(text, isa, Output::Assembly)?;
    String::from_utf8(bytes).map_err(|_| CodegenError::Llvm("the assembly is no UTF-8".into()))
}

fn emit(text: &str, isa: Isa, output: Output) -> Result<Vec<u8>, CodegenError> {
    let context = context();
    let diagnostics = Rc::new(RefCell::new(Vec::new()));
    let sink = diagnostics.clone();
    context.attach_diagnostic_handler(move |diagnostic| {
        sink.borrow_mut().push(diagnostic.to_string());
        true
    });
    let refused = || CodegenError::Mlir(diagnostics.borrow().join("; "));
    let mut module = Module::parse(&context, text).ok_or_else(refused)?;
    let passes = PassManager::new(&context);
    parse_pass_pipeline(passes.as_operation_pass_manager(), LOWERING)
        .map_err(|error| CodegenError::Mlir(error.to_string()))?;
    passes.enable_verifier(false);
    passes.run(&mut module).map_err(|_| refused())?;
    llvm::Module::translate(module.as_operation().to_raw())?.emit(isa, output)
}

/// A context with every dialect loaded: touching one that is not crashes MLIR.
fn context() -> Context {
    let registry = DialectRegistry::new();
    register_all_dialects(&registry);
    register_all_passes();
    let context = Context::new_with_registry(&registry, false);
    for dialect in ["func", "arith", "math", "vector", "scf", "cf", "llvm", "nvvm"] {
        context.get_or_load_dialect(dialect);
    }
    register_all_llvm_translations(&context);
    context
}
