//! PTX as LLVM writes it: kernels in C that clang compiles for sm_80, against the same computation here.

use std::process::Command;
use std::sync::LazyLock;

use trainc_ptx::{Arg, Device, Geometry, Options, Report};

/// The PTX of `kernels.cu`.
static PTX: LazyLock<String> = LazyLock::new(|| {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/semantics/kernels.cu");
    let mut clang = Command::new("clang-22");
    clang.args(["-x", "cuda", "--cuda-gpu-arch=sm_80", "-nocudainc", "-nocudalib", "--cuda-device-only", "-S", "-O2"]);
    clang.args(["-ffp-contract=off", "-Xclang", "-target-feature", "-Xclang", "+ptx80", "-o", "-", source]);
    let output = clang.output().expect("clang-22 is among the packages that `make setup` installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
});

/// Launches a kernel of `kernels.cu`, which must do nothing wrong.
fn launch(device: &mut Device, name: &str, grid: [u32; 3], block: [u32; 3], args: &[Arg]) -> Report {
    let loaded = device.load(&PTX).unwrap_or_else(|error| panic!("{error}"));
    let kernel = loaded.program.kernel(name).unwrap().clone();
    let report = device.launch(&loaded, &kernel, Geometry { grid, block, dynamic_shared: 0 }, args);
    assert!(report.violations.is_empty(), "{}", report.violations[0]);
    report
}

fn device() -> Device {
    Device::new(Options { seed: Some(7), ..Options::default() })
}

/// Numbers between -1 and 1.
fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

#[test]
fn a_loop_over_a_grid() {
    let (mut device, x, y) = (device(), numbers(1000), numbers(1001)[1..].to_vec());
    let (at_x, at_y) = (device.upload(&x, "x"), device.upload(&y, "y"));
    let args = [Arg::Pointer(at_y), Arg::Pointer(at_x), Arg::F32(2.5), Arg::I32(1000)];
    let report = launch(&mut device, "saxpy", [3, 1, 1], [96, 1, 1], &args);
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y + 2.5 * x).collect();
    assert_eq!(device.download_f32(at_y, 1000).unwrap(), expected);
    assert_eq!(report.counters.coalescing(), 1.0);
}

#[test]
fn a_product_in_tiles() {
    let n = 64;
    let (mut device, a, b) = (device(), numbers(n * n), numbers(2 * n * n)[n * n..].to_vec());
    let (at_a, at_b) = (device.upload(&a, "a"), device.upload(&b, "b"));
    let at_c = device.memory.allocate(4 * n * n, Some("c")).unwrap();
    let args = [Arg::Pointer(at_c), Arg::Pointer(at_a), Arg::Pointer(at_b), Arg::I32(n as i32)];
    let report = launch(&mut device, "product", [2, 2, 1], [32, 32, 1], &args);
    let c = device.download_f32(at_c, n * n).unwrap();
    for (index, value) in c.iter().enumerate() {
        let expected = (0..n).fold(0f32, |sum, k| a[index / n * n + k].mul_add(b[k * n + index % n], sum));
        assert_eq!(*value, expected);
    }
    assert_eq!(report.counters.fma_macs, (n * n * n) as u64);
    assert_eq!(report.counters.shared.efficiency(), 1.0);
}

#[test]
fn a_sum_of_a_block() {
    let (mut device, x) = (device(), vec![0.25f32; 1234]);
    let (at_x, at_out) = (device.upload(&x, "x"), device.upload(&[0f32], "out"));
    launch(
        &mut device,
        "block_sum",
        [1, 1, 1],
        [256, 1, 1],
        &[Arg::Pointer(at_out), Arg::Pointer(at_x), Arg::I32(1234)],
    );
    assert_eq!(device.download_f32(at_out, 1).unwrap(), [308.5]);
}

#[test]
fn paths_of_different_lengths() {
    let inputs: Vec<i32> = (1..=300).collect();
    let mut device = device();
    let (at_in, at_out) = (device.upload(&inputs, "in"), device.upload(&vec![0i32; 300], "out"));
    launch(&mut device, "paths", [5, 1, 1], [64, 1, 1], &[Arg::Pointer(at_out), Arg::Pointer(at_in), Arg::I32(300)]);
    let output = device.download(at_out, 300).unwrap();
    for (input, found) in inputs.iter().zip(output) {
        let (mut value, mut steps) = (*input, 0i32);
        while value != 1 {
            value = if value % 2 == 1 { 3 * value + 1 } else { value / 2 };
            steps += 1;
        }
        let expected = [steps + 1000, steps * 3, steps - 7, steps ^ 0x55, -steps, steps << 2][(*input % 6) as usize];
        assert_eq!(found as i32, expected, "{input}");
    }
}

#[test]
fn an_array_in_local_memory() {
    let bytes: Vec<u8> = (0..32 * 50u32).map(|i| (i * i % 97 + i / 50) as u8).collect();
    let mut device = device();
    let (at_in, at_out) = (device.upload(&bytes, "in"), device.upload(&[0i32; 32], "out"));
    launch(&mut device, "histogram", [1, 1, 1], [32, 1, 1], &[Arg::Pointer(at_out), Arg::Pointer(at_in), Arg::I32(50)]);
    for (row, found) in bytes.chunks(50).zip(device.download(at_out, 32).unwrap()) {
        let count = |value: u8| row.iter().filter(|byte| **byte & 15 == value).count();
        let most = (1..16).fold(0, |most, value| if count(value) > count(most) { value } else { most });
        assert_eq!(found, u32::from(most));
    }
}

#[test]
fn wide_integers_and_conversions() {
    let inputs: Vec<i64> = (0..100).map(|i| (i - 50) * 987_654_321_123).collect();
    let raw: Vec<u64> = inputs.iter().map(|value| *value as u64).collect();
    let mut device = device();
    let (at_in, at_out) = (device.upload(&raw, "in"), device.upload(&vec![0f64; 100], "out"));
    launch(&mut device, "mixture", [4, 1, 1], [32, 1, 1], &[Arg::Pointer(at_out), Arg::Pointer(at_in), Arg::I32(100)]);
    let words = device.download(at_out, 200).unwrap();
    for (index, value) in inputs.iter().enumerate() {
        let mixed = (*value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mixed ^ mixed >> 31;
        let quotient = (value / 7) as f64 + (mixed % 1000) as f64 / 3.0;
        let expected = quotient * 0.5 + f64::from(quotient as f32) + f64::from(*value as i16) + f64::from(*value as u8);
        let found = u64::from(words[2 * index]) | u64::from(words[2 * index + 1]) << 32;
        assert_eq!(f64::from_bits(found), expected, "{value}");
    }
}
