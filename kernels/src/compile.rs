//! The entry points: kernels in, machine code out.

use crate::{
    attention,
    backend::{Backend, CodegenError, Form},
    caches::Caches,
    cuda::{self, DeviceStage},
    emit::builder::Builder,
    gemm,
    ir::{Body, Kernel},
    micro::{Machine, MicroKernels},
    nest,
    stage::Lowered,
};
use trainc_runtime::artifact::{Isa, KernelSpec, StageSpec};

/// How to compile.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Modules that the kernels are spread over: each becomes an object, and a backend may make several at once. The number
    /// shows in the bytes of an artifact, so that it must not follow the machine.
    pub modules: usize,
    /// The caches of the processor that will run the code; no result depends on them.
    pub caches: Caches,
}

impl Default for Options {
    fn default() -> Self {
        Options { modules: 4, caches: Caches::PORTABLE }
    }
}

/// What [`compile`] makes.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// ELF relocatable objects: position independent, without undefined symbols.
    pub objects: Vec<Vec<u8>>,
    /// How to launch each kernel, in the order given.
    pub specs: Vec<KernelSpec>,
}

/// The best instruction set of this machine that code can be generated for, by CPUID. On a processor below x86-64-v3
/// the answer is still [`Isa::X86V3`]; the runtime refuses to load such code there.
pub fn host_isa() -> Isa {
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match v4 {
        true if is_x86_feature_detected!("avx512bf16") => Isa::X86V4Bf16,
        true => Isa::X86V4,
        false => Isa::X86V3,
    }
}

/// The kinds of machine that code is made for; a plan is for one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA devices.
    Cuda,
}

/// Bytes of memory that a kernel's stages share. If not 0, a launch passes one more buffer of that size after the
/// kernel's own; [`KernelSpec::buffer_bytes`] includes it. The same for all instruction sets of a target, and
/// whatever the caches.
pub fn workspace_bytes(kernel: &Kernel, target: Target) -> u64 {
    if target == Target::Cuda {
        return cuda::workspace_bytes(kernel);
    }
    match &kernel.body {
        Body::Gemm(product) => {
            Machine::ALL.map(|machine| gemm::workspace_bytes(kernel, product, machine)).into_iter().max().unwrap_or(0)
        }
        Body::Nest(nest) => nest::workspace_bytes(kernel, nest),
        Body::Attention(_) | Body::AttentionBackward(_) | Body::Batch(_) => 0,
    }
}

/// Reductions of so many elements to one want two stages, as long scatters do, which a batch does not have.
const LONG: u64 = 1 << 20;

/// Whether a [`Batch`](crate::ir::Batch) may hold this kernel: a nest that one stage suits on every target. It does not depend
/// on how many sums a nest takes: that may be the depth of a repeat.
pub fn may_join_a_batch(kernel: &Kernel) -> bool {
    match &kernel.body {
        Body::Nest(nest) => {
            nest.inner.iter().product::<u64>() < LONG && !nest::scatter::is_long(nest) && !cuda::is_turned(nest)
        }
        _ => false,
    }
}

/// Compiles kernels for an instruction set. Stage symbols are unique over all objects.
///
/// # Errors
/// [`CodegenError::Malformed`] for the first kernel that breaks a rule of [`crate::ir`]; otherwise those of the backend.
pub fn compile(
    kernels: &[Kernel],
    isa: Isa,
    backend: &dyn Backend,
    options: &Options,
) -> Result<Compiled, CodegenError> {
    kernels.iter().try_for_each(verify)?;
    let count = options.modules.clamp(1, kernels.len().max(1));
    let (mut modules, mut specs) = (Vec::new(), vec![None; kernels.len()]);
    for first in 0..count {
        let (text, part) = module(kernels.iter().enumerate().skip(first).step_by(count), isa, options.caches);
        modules.push(text);
        specs.iter_mut().skip(first).step_by(count).zip(part).for_each(|(place, spec)| *place = Some(spec));
    }
    let specs = specs.into_iter().map(|spec| spec.expect("every kernel is in a module")).collect();
    let form = if isa.is_cuda() { Form::Assembly } else { Form::Object };
    Ok(Compiled { objects: generate(&modules, isa, backend, form)?, specs })
}

/// The MLIR of kernels, which have numbers that their symbols begin with, and how each is launched.
fn module<'a>(
    kernels: impl Iterator<Item = (usize, &'a Kernel)> + Clone,
    isa: Isa,
    caches: Caches,
) -> (String, Vec<KernelSpec>) {
    if isa.is_cuda() {
        let (text, stages) = cuda::lower(kernels.clone());
        return (text, kernels.zip(stages).map(|((_, kernel), stages)| device_spec(kernel, stages)).collect());
    }
    let mut unit = Unit::new(isa, caches);
    let specs = kernels.map(|(number, kernel)| spec(kernel, unit.lower(kernel, number))).collect();
    (unit.finish(), specs)
}

fn generate(modules: &[String], isa: Isa, backend: &dyn Backend, form: Form) -> Result<Vec<Vec<u8>>, CodegenError> {
    let code = backend.generate(modules, isa, form)?;
    if isa.is_cuda() {
        code.iter().try_for_each(|ptx| cuda::verify_linked(ptx))?;
    }
    Ok(code)
}

/// The MLIR of one kernel, before any pass.
///
/// # Errors
/// If the kernel is malformed.
pub fn lower_to_mlir(kernel: &Kernel, isa: Isa, caches: Caches) -> Result<String, CodegenError> {
    verify(kernel)?;
    Ok(module(std::iter::once((0, kernel)), isa, caches).0)
}

/// How a device launches a kernel: entries, grids and blocks. The same for all devices.
///
/// # Errors
/// If the kernel is malformed.
pub fn device_stages(kernel: &Kernel) -> Result<Vec<StageSpec>, CodegenError> {
    verify(kernel)?;
    let (_, mut stages) = cuda::lower([(0, kernel)]);
    Ok(stages.pop().into_iter().flatten().map(DeviceStage::spec).collect())
}

/// The machine code of each kernel as assembly: PTX for devices.
///
/// # Errors
/// As [`compile`].
pub fn assembly(
    kernels: &[Kernel],
    isa: Isa,
    caches: Caches,
    backend: &dyn Backend,
) -> Result<Vec<String>, CodegenError> {
    let modules = kernels.iter().map(|kernel| lower_to_mlir(kernel, isa, caches)).collect::<Result<Vec<_>, _>>()?;
    let code = generate(&modules, isa, backend, Form::Assembly)?;
    let text = |code| String::from_utf8(code).map_err(|_| CodegenError::Llvm("the assembly is no UTF-8".into()));
    code.into_iter().map(text).collect()
}

fn verify(kernel: &Kernel) -> Result<(), CodegenError> {
    kernel.verify().map_err(|reason| CodegenError::Malformed { label: kernel.label.clone(), reason })
}

/// A module in the making.
struct Unit {
    builder: Builder,
    micro: MicroKernels,
}

impl Unit {
    fn new(isa: Isa, caches: Caches) -> Unit {
        let machine = Machine { caches, ..machine(isa) };
        Unit { builder: Builder::new(machine.bf16_pairs), micro: MicroKernels::new(machine) }
    }

    fn lower(&mut self, kernel: &Kernel, number: usize) -> Lowered {
        let (b, micro) = (&mut self.builder, &mut self.micro);
        let name = format!("k{number}");
        match &kernel.body {
            Body::Nest(nest) => nest::lower(b, kernel, nest, micro.tile.lanes, &name),
            Body::Gemm(product) => gemm::lower(b, micro, kernel, product, &name),
            Body::Attention(attention) => attention::lower_forward(b, micro, kernel, attention, &name),
            Body::AttentionBackward(attention) => attention::lower_backward(b, micro, kernel, attention, &name),
            Body::Batch(batch) => nest::batch::lower(b, batch, micro.tile.lanes, &name),
        }
    }

    fn finish(mut self) -> String {
        self.micro.emit(&mut self.builder);
        self.builder.finish()
    }
}

/// The processor that an instruction set is of.
fn machine(isa: Isa) -> Machine {
    match isa {
        Isa::X86V3 => Machine::new(8, false),
        Isa::X86V4 => Machine::new(16, false),
        Isa::X86V4Bf16 => Machine::new(16, true),
        _ => unreachable!("device code is not made of vectors"),
    }
}

fn spec(kernel: &Kernel, lowered: Lowered) -> KernelSpec {
    let stages = lowered.stages.into_iter().map(|(symbol, tiles)| StageSpec { symbol, tiles, block: None });
    let (stages, scratch_bytes) = (stages.collect(), lowered.scratch_bytes);
    let buffer_bytes = buffer_bytes(kernel, workspace_bytes(kernel, Target::Cpu));
    KernelSpec { label: kernel.label.clone(), stages, scratch_bytes, buffer_bytes }
}

fn device_spec(kernel: &Kernel, stages: Vec<DeviceStage>) -> KernelSpec {
    let stages = stages.into_iter().map(DeviceStage::spec).collect();
    let buffer_bytes = buffer_bytes(kernel, workspace_bytes(kernel, Target::Cuda));
    KernelSpec { label: kernel.label.clone(), stages, scratch_bytes: 0, buffer_bytes }
}

fn buffer_bytes(kernel: &Kernel, workspace: u64) -> Vec<u64> {
    let own = kernel.buffers.iter().map(|buffer| buffer.elements * buffer.dtype.bytes());
    own.chain(Some(workspace).filter(|&bytes| bytes > 0)).collect()
}
