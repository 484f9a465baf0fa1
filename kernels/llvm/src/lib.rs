//! From MLIR text to machine code: parse and verify, lower to the LLVM dialect, translate, optimise, emit. This is the only
//! crate that knows MLIR and LLVM; what does not name it is not linked with them.

mod module;

use melior::{
    Context,
    dialect::DialectRegistry,
    ir::Module,
    pass::PassManager,
    utility::{parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes},
};
use std::{cell::RefCell, rc::Rc};
use trainc_kernels::{Backend, CodegenError, Form};
use trainc_runtime::{
    artifact::Isa,
    threads::{processors, side_by_side},
};

/// Everything emitted is vectorised and addressed through plain pointers, so lowering is one conversion a dialect.
const LOWERING: &str = "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,\
    convert-arith-to-llvm,convert-cf-to-llvm,convert-func-to-llvm,convert-nvvm-to-llvm,reconcile-unrealized-casts)";

/// The code generator in this process. A fatal error of LLVM's ends the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Llvm;

impl Backend for Llvm {
    fn generate(&self, modules: &[String], isa: Isa, form: Form) -> Result<Vec<Vec<u8>>, CodegenError> {
        let mut code: Vec<_> = modules.iter().map(|_| Ok(Vec::new())).collect();
        side_by_side(processors(), modules.iter().zip(&mut code), |(text, code)| *code = emit(text, isa, form));
        code.into_iter().collect()
    }
}

fn emit(text: &str, isa: Isa, form: Form) -> Result<Vec<u8>, CodegenError> {
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
    module::Module::translate(module.as_operation().to_raw())?.emit(isa, form)
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
