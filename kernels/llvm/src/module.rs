//! The part of LLVM's C API that turns a module into an object file or assembly. `mlir-sys` binds the core types only;
//! the functions below come from the same library that it links.

use mlir_sys::{LLVMContextRef, LLVMModuleRef};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
    sync::Once,
};
use trainc_kernels::{CodegenError, Form};
use trainc_runtime::artifact::Isa;

type TargetRef = *mut c_void;
type TargetMachineRef = *mut c_void;
type MemoryBufferRef = *mut c_void;
type PassOptionsRef = *mut c_void;
type ErrorRef = *mut c_void;

const OPT_DEFAULT: c_int = 2;
const RELOC_PIC: c_int = 2;
const CODE_MODEL_SMALL: c_int = 3;

unsafe extern "C" {
    fn LLVMInitializeX86TargetInfo();
    fn LLVMInitializeX86Target();
    fn LLVMInitializeX86TargetMC();
    fn LLVMInitializeX86AsmPrinter();
    fn LLVMInitializeNVPTXTargetInfo();
    fn LLVMInitializeNVPTXTarget();
    fn LLVMInitializeNVPTXTargetMC();
    fn LLVMInitializeNVPTXAsmPrinter();
    fn LLVMGetTargetFromTriple(triple: *const c_char, target: *mut TargetRef, error: *mut *mut c_char) -> c_int;
    fn LLVMCreateTargetMachine(
        target: TargetRef,
        triple: *const c_char,
        cpu: *const c_char,
        features: *const c_char,
        level: c_int,
        reloc: c_int,
        model: c_int,
    ) -> TargetMachineRef;
    fn LLVMDisposeTargetMachine(machine: TargetMachineRef);
    fn LLVMCreateTargetDataLayout(machine: TargetMachineRef) -> *mut c_void;
    fn LLVMSetModuleDataLayout(module: LLVMModuleRef, layout: *mut c_void);
    fn LLVMDisposeTargetData(layout: *mut c_void);
    fn LLVMSetTarget(module: LLVMModuleRef, triple: *const c_char);
    fn LLVMCreatePassBuilderOptions() -> PassOptionsRef;
    fn LLVMDisposePassBuilderOptions(options: PassOptionsRef);
    fn LLVMRunPasses(
        module: LLVMModuleRef,
        passes: *const c_char,
        machine: TargetMachineRef,
        options: PassOptionsRef,
    ) -> ErrorRef;
    fn LLVMGetErrorMessage(error: ErrorRef) -> *mut c_char;
    fn LLVMDisposeErrorMessage(message: *mut c_char);
    fn LLVMTargetMachineEmitToMemoryBuffer(
        machine: TargetMachineRef,
        module: LLVMModuleRef,
        kind: c_int,
        error: *mut *mut c_char,
        buffer: *mut MemoryBufferRef,
    ) -> c_int;
    fn LLVMGetBufferStart(buffer: MemoryBufferRef) -> *const u8;
    fn LLVMGetBufferSize(buffer: MemoryBufferRef) -> usize;
    fn LLVMDisposeMemoryBuffer(buffer: MemoryBufferRef);
    fn LLVMContextDispose(context: LLVMContextRef);
    fn LLVMContextCreate() -> LLVMContextRef;
    fn LLVMDisposeModule(module: LLVMModuleRef);
    fn LLVMDisposeMessage(message: *mut c_char);
    fn mlirTranslateModuleToLLVMIR(module: mlir_sys::MlirOperation, context: LLVMContextRef) -> LLVMModuleRef;
}

/// The kernels are vectorised when they are emitted, so LLVM only has to clean up: these passes give code equal to
/// `default<O2>`'s in a fraction of its time.
const CPU_PASSES: &CStr = c"function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,\
    loop-mssa(loop-rotate,licm),gvn,instcombine<no-verify-fixpoint>,loop(loop-reduce),early-cse,simplifycfg)";

/// Device code has its loops rewritten by the back end, which knows what addressing costs.
const CUDA_PASSES: &CStr = c"function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,\
    loop-mssa(loop-rotate,licm),gvn,instcombine<no-verify-fixpoint>,early-cse,simplifycfg)";

/// An LLVM module with the context that owns it.
pub(super) struct Module {
    context: LLVMContextRef,
    module: LLVMModuleRef,
}

impl Module {
    /// Translates an MLIR module of the LLVM dialect.
    pub fn translate(operation: mlir_sys::MlirOperation) -> Result<Module, CodegenError> {
        // SAFETY: the operation is a verified module and outlives the call; a null result is handled.
        let (context, module) = unsafe {
            let context = LLVMContextCreate();
            (context, mlirTranslateModuleToLLVMIR(operation, context))
        };
        let translated = Module { context, module };
        match translated.module.is_null() {
            true => Err(CodegenError::Llvm("the module does not translate to LLVM IR".into())),
            false => Ok(translated),
        }
    }

    /// Optimises the module and generates code for an instruction set.
    pub fn emit(&self, isa: Isa, form: Form) -> Result<Vec<u8>, CodegenError> {
        let machine = Machine::new(isa)?;
        self.optimise(&machine, isa)?;
        let (mut message, mut buffer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: machine and module are live; on success the buffer is ours to read and dispose, else the message is.
        unsafe {
            let kind = file_type(form);
            let failed = LLVMTargetMachineEmitToMemoryBuffer(machine.0, self.module, kind, &mut message, &mut buffer);
            if failed != 0 {
                return Err(CodegenError::Llvm(take_message(message)));
            }
            let bytes = std::slice::from_raw_parts(LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer)).to_vec();
            LLVMDisposeMemoryBuffer(buffer);
            Ok(bytes)
        }
    }

    fn optimise(&self, machine: &Machine, isa: Isa) -> Result<(), CodegenError> {
        // SAFETY: module and machine are live, the strings are nul-terminated, and an error is consumed once.
        unsafe {
            let layout = LLVMCreateTargetDataLayout(machine.0);
            LLVMSetModuleDataLayout(self.module, layout);
            LLVMDisposeTargetData(layout);
            LLVMSetTarget(self.module, triple(isa).as_ptr());
            let options = LLVMCreatePassBuilderOptions();
            let passes = if isa.is_cuda() { CUDA_PASSES } else { CPU_PASSES };
            let error = LLVMRunPasses(self.module, passes.as_ptr(), machine.0, options);
            LLVMDisposePassBuilderOptions(options);
            if error.is_null() {
                return Ok(());
            }
            let message = LLVMGetErrorMessage(error);
            let text = CStr::from_ptr(message).to_string_lossy().into_owned();
            LLVMDisposeErrorMessage(message);
            Err(CodegenError::Llvm(text))
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: both were created by `translate` and are disposed of once, the module first.
        unsafe {
            if !self.module.is_null() {
                LLVMDisposeModule(self.module);
            }
            LLVMContextDispose(self.context);
        }
    }
}

/// A code generator for one instruction set.
struct Machine(TargetMachineRef);

impl Machine {
    fn new(isa: Isa) -> Result<Machine, CodegenError> {
        static INITIALISE: Once = Once::new();
        // SAFETY: initialisation runs once; all strings are nul-terminated; failures are reported, not dereferenced.
        unsafe {
            INITIALISE.call_once(|| {
                LLVMInitializeX86TargetInfo();
                LLVMInitializeX86Target();
                LLVMInitializeX86TargetMC();
                LLVMInitializeX86AsmPrinter();
                LLVMInitializeNVPTXTargetInfo();
                LLVMInitializeNVPTXTarget();
                LLVMInitializeNVPTXTargetMC();
                LLVMInitializeNVPTXAsmPrinter();
            });
            let (mut target, mut message) = (ptr::null_mut(), ptr::null_mut());
            let triple = triple(isa);
            if LLVMGetTargetFromTriple(triple.as_ptr(), &mut target, &mut message) != 0 {
                return Err(CodegenError::Llvm(take_message(message)));
            }
            let (cpu, features) = cpu(isa);
            let (cpu, features) = (CString::new(cpu), CString::new(features));
            let (cpu, features) = (cpu.expect("no nul in a name"), features.expect("no nul in a name"));
            let machine = LLVMCreateTargetMachine(
                target,
                triple.as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                OPT_DEFAULT,
                RELOC_PIC,
                CODE_MODEL_SMALL,
            );
            match machine.is_null() {
                true => Err(CodegenError::Llvm(format!("LLVM has no code generator for {isa:?}"))),
                false => Ok(Machine(machine)),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: created by `new`, disposed of once.
        unsafe { LLVMDisposeTargetMachine(self.0) }
    }
}

/// LLVM's number of a form (`LLVMCodeGenFileType`).
fn file_type(form: Form) -> c_int {
    match form {
        Form::Assembly => 0,
        Form::Object => 1,
    }
}

fn triple(isa: Isa) -> &'static CStr {
    if isa.is_cuda() { c"nvptx64-nvidia-cuda" } else { c"x86_64-unknown-linux-gnu" }
}

/// LLVM's names of processor and features. Of PTX the lowest version that knows the device: drivers accept what is older
/// than they are.
fn cpu(isa: Isa) -> (&'static str, &'static str) {
    match isa {
        Isa::X86V3 => ("x86-64-v3", ""),
        Isa::X86V4 => ("x86-64-v4", ""),
        Isa::X86V4Bf16 => ("x86-64-v4", "+avx512bf16"),
        Isa::Sm80 => ("sm_80", "+ptx80"),
        Isa::Sm86 => ("sm_86", "+ptx80"),
        Isa::Sm89 => ("sm_89", "+ptx80"),
        Isa::Sm90 => ("sm_90", "+ptx80"),
        Isa::Sm100 => ("sm_100", "+ptx86"),
        Isa::Sm120 => ("sm_120", "+ptx87"),
    }
}

/// # Safety
/// `message` is null or a message that LLVM allocated.
unsafe fn take_message(message: *mut c_char) -> String {
    if message.is_null() {
        return "unknown error".into();
    }
    // SAFETY: by the contract above.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        LLVMDisposeMessage(message);
        text
    }
}
