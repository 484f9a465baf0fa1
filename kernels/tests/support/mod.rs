//! Runs compiled kernels next to the reference interpreter.

#![allow(dead_code)]

pub mod device;

use trainc_kernels::{
    Caches, Options, compile, host_isa,
    ir::{Access, Batch, Buffer, DType, Kernel},
    reference::{self, HostBuffer},
};
use trainc_llvm::Llvm;
use trainc_runtime::{abi::StageFn, artifact::Isa, code::LoadedCode};

/// Instruction sets that this machine executes.
pub fn executable_isas() -> Vec<Isa> {
    let all = [Isa::X86V3, Isa::X86V4, Isa::X86V4Bf16];
    all.into_iter().filter(|&isa| isa <= host_isa()).collect()
}

/// The machine code of a kernel as text.
pub fn assembly(kernel: &Kernel, isa: Isa) -> String {
    let texts = trainc_kernels::assembly(std::slice::from_ref(kernel), isa, Caches::PORTABLE, &Llvm);
    texts.unwrap_or_else(|error| panic!("{}: {error}", kernel.label)).remove(0)
}

/// A kernel in memory.
pub struct Program {
    _code: LoadedCode,
    stages: Vec<(StageFn, u64)>,
    scratch_bytes: u64,
    workspace_bytes: u64,
}

impl Program {
    pub fn new(kernel: &Kernel, isa: Isa) -> Program {
        Program::for_caches(kernel, isa, Caches::PORTABLE)
    }

    pub fn for_caches(kernel: &Kernel, isa: Isa, caches: Caches) -> Program {
        let compiled = compile(std::slice::from_ref(kernel), isa, &Llvm, &Options { modules: 1, caches })
            .unwrap_or_else(|error| panic!("{}: {error}", kernel.label));
        let code = LoadedCode::load(&compiled.objects).expect("the object loads");
        let spec = &compiled.specs[0];
        let stage = |stage: &trainc_runtime::artifact::StageSpec| {
            (code.symbol(&stage.symbol).expect("the symbol exists"), stage.tiles)
        };
        let stages = spec.stages.iter().map(stage).collect();
        let workspace_bytes = spec.buffer_bytes[kernel.buffers.len()..].iter().sum();
        Program { stages, scratch_bytes: spec.scratch_bytes, workspace_bytes, _code: code }
    }

    pub fn tiles(&self) -> Vec<u64> {
        self.stages.iter().map(|stage| stage.1).collect()
    }

    /// Runs all stages, each cut into calls of `tiles_per_call` tiles, later calls first.
    pub fn run(&self, buffers: &mut [HostBuffer], instance: u64, tiles_per_call: u64) {
        let mut workspace = vec![[0xAAu8; 64]; self.workspace_bytes.div_ceil(64) as usize];
        let mut scratch = vec![[0xAAu8; 64]; self.scratch_bytes.div_ceil(64) as usize + 1];
        let mut args: Vec<*mut u8> = buffers.iter_mut().map(HostBuffer::as_mut_ptr).collect();
        args.push(workspace.as_mut_ptr().cast());
        for &(stage, tiles) in &self.stages {
            let mut end = tiles;
            while end > 0 {
                let begin = end.saturating_sub(tiles_per_call);
                // SAFETY: the arguments are those of the kernel's specification.
                unsafe { stage(args.as_ptr(), instance, begin, end, scratch.as_mut_ptr().cast()) };
                end = begin;
            }
        }
    }
}

/// SplitMix64, so that test data needs no crate.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    }

    /// Random contents for a buffer; integers are below `below`.
    pub fn buffer(&mut self, buffer: &Buffer, below: u64) -> HostBuffer {
        let count = buffer.elements as usize;
        match buffer.dtype {
            DType::F32 => HostBuffer::F32((0..count).map(|_| self.uniform()).collect()),
            DType::Bf16 => HostBuffer::Bf16((0..count).map(|_| (self.uniform().to_bits() >> 16) as u16).collect()),
            DType::I32 => HostBuffer::I32((0..count).map(|_| (self.next() % below) as i32).collect()),
        }
    }
}

/// Runs a kernel on random data and compares every written buffer with the reference; also checks that the split into
/// calls changes no bit. `tolerance` is relative to the largest magnitude of a buffer.
pub fn check(kernel: &Kernel, below: u64, tolerance: f64) {
    let mut numbers = Numbers(kernel.buffers.iter().map(|buffer| buffer.elements).sum());
    let inputs: Vec<HostBuffer> = kernel.buffers.iter().map(|buffer| numbers.buffer(buffer, below)).collect();
    check_on(kernel, &inputs, tolerance);
}

/// [`check`] on given data.
pub fn check_on(kernel: &Kernel, inputs: &[HostBuffer], tolerance: f64) {
    let mut expected = inputs.to_vec();
    reference::run(kernel, &mut expected, 3);
    check_device(kernel, inputs, &expected, tolerance);
    for isa in executable_isas() {
        let program = Program::new(kernel, isa);
        let mut actual = inputs.to_vec();
        program.run(&mut actual, 3, u64::MAX);
        for (number, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            if kernel.buffers[number].access != Access::Read {
                compare(&format!("{} {isa:?} buffer {number}", kernel.label), actual, expected, tolerance);
            }
        }
        let mut split = inputs.to_vec();
        program.run(&mut split, 3, 1);
        for (whole, split) in actual.iter().zip(&split) {
            assert!(bits(whole) == bits(split), "{}: the split into tiles changes the result", kernel.label);
        }
    }
}

/// Checks that code for other caches gives the bits that code for [`Caches::PORTABLE`] does, and that they decide something.
pub fn check_caches(kernel: &Kernel, tolerance: f64) {
    let mut numbers = Numbers(5);
    let inputs: Vec<HostBuffer> = kernel.buffers.iter().map(|buffer| numbers.buffer(buffer, 1)).collect();
    check_on(kernel, &inputs, tolerance);
    for isa in executable_isas() {
        let result = |caches: Caches| {
            let program = Program::for_caches(kernel, isa, caches);
            let mut buffers = inputs.clone();
            program.run(&mut buffers, 3, 1);
            (program.scratch_bytes, buffers.iter().map(bits).collect::<Vec<_>>())
        };
        let (scratch, expected) = result(Caches::PORTABLE);
        let others = [0, 256 << 10, 2 << 20, u64::MAX].map(|second| result(Caches::new(second)));
        assert!(others.iter().all(|(_, actual)| *actual == expected), "{} {isa:?}: other bits", kernel.label);
        assert!(others.iter().any(|(other, _)| *other != scratch), "{} {isa:?}: caches decide nothing", kernel.label);
    }
}

/// Runs a kernel as device code, in two orders of blocks and warps, and compares with the reference.
fn check_device(kernel: &Kernel, inputs: &[HostBuffer], expected: &[HostBuffer], tolerance: f64) {
    let mut results = [None, Some(7)].map(|seed| {
        let mut actual = inputs.to_vec();
        device::run(kernel, &mut actual, 3, seed);
        actual
    });
    let [actual, shuffled] = &mut results;
    for (number, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        if kernel.buffers[number].access != Access::Read {
            compare(&format!("{} on a device, buffer {number}", kernel.label), actual, expected, tolerance);
        }
    }
    let same = actual.iter().zip(shuffled.iter()).all(|(a, b)| bits(a) == bits(b));
    assert!(same, "{}: the order of blocks changes the result", kernel.label);
}

/// Compares device code with the processor's on random data; `tolerance` as in [`check`], 0 for equal bits.
pub fn check_targets(kernel: &Kernel, tolerance: f64) {
    let mut numbers = Numbers(kernel.buffers.iter().map(|buffer| buffer.elements).sum());
    let inputs: Vec<HostBuffer> = kernel.buffers.iter().map(|buffer| numbers.buffer(buffer, 1)).collect();
    let (mut expected, mut actual) = (inputs.clone(), inputs);
    Program::new(kernel, host_isa()).run(&mut expected, 3, u64::MAX);
    device::run(kernel, &mut actual, 3, None);
    for (number, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        compare(&format!("{} on a device, buffer {number}", kernel.label), actual, expected, tolerance);
        assert!(tolerance > 0.0 || bits(actual) == bits(expected), "{}: other bits", kernel.label);
    }
}

fn bits(buffer: &HostBuffer) -> Vec<u32> {
    match buffer {
        HostBuffer::F32(data) => data.iter().map(|x| x.to_bits()).collect(),
        HostBuffer::Bf16(data) => data.iter().map(|&x| x.into()).collect(),
        HostBuffer::I32(data) => data.iter().map(|&x| x as u32).collect(),
    }
}

pub fn floats(buffer: &HostBuffer) -> Vec<f64> {
    match buffer {
        HostBuffer::F32(data) => data.iter().map(|&x| x.into()).collect(),
        HostBuffer::Bf16(data) => data.iter().map(|&x| f32::from_bits(u32::from(x) << 16).into()).collect(),
        HostBuffer::I32(data) => data.iter().map(|&x| x.into()).collect(),
    }
}

fn compare(what: &str, actual: &HostBuffer, expected: &HostBuffer, tolerance: f64) {
    let tolerance = if matches!(actual, HostBuffer::Bf16(_)) { tolerance.max(1.0 / 128.0) } else { tolerance };
    let (actual, expected) = (floats(actual), floats(expected));
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1e-3f64, |scale, x| scale.max(x.abs()));
    for (position, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let same = a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * scale;
        assert!(same, "{what}, element {position}: {a} instead of {e} (scale {scale})");
    }
}

/// Shorthand for the buffers of test kernels.
pub fn buffer(dtype: DType, elements: u64, access: Access) -> Buffer {
    Buffer { dtype, elements, access }
}

/// Checks a batch of kernels as [`check`] does, and that none of them gets other bits than it does alone.
pub fn check_batch(kernels: &[Kernel], below: u64) {
    let (batch, order) = Batch::of(&kernels.iter().collect::<Vec<_>>());
    let batch = batch.kernel();
    assert_eq!(batch.verify(), Ok(()));
    check(&batch, below, 1e-5);
    let mut numbers = Numbers(9);
    let inputs: Vec<HostBuffer> = batch.buffers.iter().map(|buffer| numbers.buffer(buffer, below)).collect();
    for isa in executable_isas().into_iter().map(Some).chain([None]) {
        let (mut together, mut alone) = (inputs.clone(), inputs.clone());
        run(&batch, &mut together, isa);
        let mut rest = &mut alone[..];
        for &number in &order {
            let (own, others) = rest.split_at_mut(kernels[number].buffers.len());
            run(&kernels[number], own, isa);
            rest = others;
        }
        let same = together.iter().zip(&alone).all(|(a, b)| bits(a) == bits(b));
        assert!(same, "{}: other bits than alone", batch.label);
    }
}

/// Runs a kernel on this processor, or without an instruction set as device code.
fn run(kernel: &Kernel, buffers: &mut [HostBuffer], isa: Option<Isa>) {
    match isa {
        Some(isa) => Program::new(kernel, isa).run(buffers, 3, 1),
        None => {
            device::run(kernel, buffers, 3, None);
        }
    }
}
