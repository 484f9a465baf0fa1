//! How fast the interpreter is: `cargo run --release -p trainc-ptx --example speed FILE.ptx` runs the kernel `product` of the
//! tests (a tiled matrix product in f32) on 512 x 512 matrices.

use std::time::Instant;

use trainc_ptx::{Arg, Device, Geometry, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = 512;
    let source = std::fs::read_to_string(std::env::args().nth(1).ok_or("the PTX file is missing")?)?;
    let mut device = Device::new(Options::default());
    let loaded = device.load(&source)?;
    let kernel = loaded.program.kernel("product").ok_or("there is no kernel `product`")?.clone();
    let [c, a, b] = ["c", "a", "b"].map(|name| device.upload(&vec![1f32; n * n], name));
    let blocks = (n / 32) as u32;
    let geometry = Geometry { grid: [blocks, blocks, 1], block: [32, 32, 1], dynamic_shared: 0 };
    let start = Instant::now();
    let args = [Arg::Pointer(c), Arg::Pointer(a), Arg::Pointer(b), Arg::I32(n as i32)];
    let report = device.launch(&loaded, &kernel, geometry, &args);
    let seconds = start.elapsed().as_secs_f64();
    let counters = &report.counters;
    println!(
        "{seconds:.3} s, {:.1} M warp instructions/s, {:.2} G lane instructions/s",
        counters.warp_instructions as f64 / seconds / 1e6,
        counters.lane_instructions as f64 / seconds / 1e9
    );
    Ok(())
}
