//! Runs device code on the PTX interpreter, which reports whatever a device must not do.

use trainc_kernels::{
    Options, compile,
    ir::{Access, Kernel},
    reference::HostBuffer,
};
use trainc_llvm::Llvm;
use trainc_ptx::{Arg, Counters, Device, Geometry, Options as Emulation};
use trainc_runtime::artifact::{Isa, KernelSpec};

/// What a kernel does on random data.
pub fn counters(kernel: &Kernel) -> Counters {
    let mut numbers = super::Numbers(1);
    let mut buffers: Vec<HostBuffer> = kernel.buffers.iter().map(|buffer| numbers.buffer(buffer, 1)).collect();
    run(kernel, &mut buffers, 0, None)
}

/// Runs all stages of a kernel on buffers; panics at the first violation. Blocks and warps run in an order that `seed`
/// shuffles. Returns what was counted.
pub fn run(kernel: &Kernel, buffers: &mut [HostBuffer], instance: u64, seed: Option<u64>) -> Counters {
    let options = Options { modules: 1, ..Options::default() };
    let compiled = compile(std::slice::from_ref(kernel), Isa::Sm80, &Llvm, &options)
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.label));
    let ptx = String::from_utf8(compiled.objects[0].clone()).expect("PTX is text");
    let mut device = Device::new(Emulation { seed, ..Emulation::default() });
    let loaded = device.load(&ptx).unwrap_or_else(|error| panic!("{}: {error}\n{ptx}", kernel.label));
    let mut args: Vec<u64> = buffers.iter().map(|buffer| upload(&mut device, buffer)).collect();
    let spec: &KernelSpec = &compiled.specs[0];
    for &bytes in &spec.buffer_bytes[buffers.len()..] {
        args.push(device.memory.allocate(bytes as usize, Some("workspace")).expect("memory for the workspace"));
    }
    let mut arguments: Vec<Arg> = args.iter().map(|&address| Arg::Pointer(address)).collect();
    arguments.push(Arg::U64(instance));
    let mut counters = Counters::default();
    for stage in &spec.stages {
        let block = stage.block.expect("device code says what a block is");
        let entry = loaded.program.kernels.iter().find(|entry| entry.name == stage.symbol).expect("the entry exists");
        let geometry = Geometry {
            grid: [stage.tiles as u32, 1, 1],
            block: [block.threads, 1, 1],
            dynamic_shared: block.shared_bytes.into(),
        };
        let report = device.launch(&loaded, entry, geometry, &arguments);
        if let Some(violation) = report.violations.first() {
            panic!("{}: {violation}", kernel.label);
        }
        counters.add(&report.counters);
    }
    for (number, (buffer, &address)) in buffers.iter_mut().zip(&args).enumerate() {
        if kernel.buffers[number].access != Access::Read {
            download(&device, address, buffer);
        }
    }
    counters
}

fn bytes(buffer: &HostBuffer) -> Vec<u8> {
    match buffer {
        HostBuffer::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        HostBuffer::Bf16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        HostBuffer::I32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

fn upload(device: &mut Device, buffer: &HostBuffer) -> u64 {
    device.upload(&bytes(buffer), "buffer")
}

fn download(device: &Device, address: u64, buffer: &mut HostBuffer) {
    let mut read = vec![0; bytes(buffer).len()];
    device.memory.read(address, &mut read).expect("the buffer is readable");
    match buffer {
        HostBuffer::F32(data) => fill(data, &read, f32::from_le_bytes),
        HostBuffer::Bf16(data) => fill(data, &read, u16::from_le_bytes),
        HostBuffer::I32(data) => fill(data, &read, i32::from_le_bytes),
    }
}

fn fill<T, const N: usize>(data: &mut [T], bytes: &[u8], read: fn([u8; N]) -> T) {
    for (element, chunk) in data.iter_mut().zip(bytes.chunks_exact(N)) {
        *element = read(chunk.try_into().expect("as many bytes as an element has"));
    }
}
