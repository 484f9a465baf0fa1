//! Kernels around a few instructions.

use trainc_ptx::{Arg, Device, Geometry, Options, Report, ViolationKind};

/// Directives and registers of every test kernel: `%p` predicates, `%h` 16 bits, `%r` 32, `%d` 64 bits.
const REGISTERS: &str = ".reg .pred %p<16>; .reg .b16 %h<16>; .reg .b32 %r<64>; .reg .b64 %d<32>; .reg .b64 %in; .reg .b64 %out; .reg .b64 %t<8>;";

/// A module with one kernel `test(in, out)` whose pointers are in `%in` and `%out`.
pub fn module(body: &str) -> String {
    format!(
        ".version 8.5\n.target sm_80\n.address_size 64\n\
         .visible .entry test(.param .u64 .ptr .global .align 16 in, .param .u64 .ptr .global .align 16 out)\n\
         {{\n{REGISTERS}\nld.param.u64 %in, [in];\nld.param.u64 %out, [out];\n{body}\nret;\n}}\n"
    )
}

/// Runs `test` over an input and an output of `out_words` words, which start out as zero.
pub fn run_with(body: &str, threads: u32, input: &[u32], out_words: usize, options: Options) -> (Vec<u32>, Report) {
    let mut device = Device::new(options);
    let loaded = device.load(&module(body)).unwrap_or_else(|error| panic!("{error}\n{}", module(body)));
    let (input, output) = (device.upload(input, "input"), device.upload(&vec![0u32; out_words], "output"));
    let kernel = loaded.program.kernel("test").unwrap().clone();
    let geometry = Geometry { grid: [1, 1, 1], block: [threads, 1, 1], dynamic_shared: 0 };
    let report = device.launch(&loaded, &kernel, geometry, &[Arg::Pointer(input), Arg::Pointer(output)]);
    (device.download(output, out_words).unwrap(), report)
}

/// Runs a kernel that must do nothing wrong.
pub fn run(body: &str, threads: u32, input: &[u32], out_words: usize) -> Vec<u32> {
    let (output, report) = run_with(body, threads, input, out_words, Options::default());
    let texts: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "{texts:#?}");
    output
}

/// The violations of a kernel with 64 threads.
pub fn faults(body: &str) -> Vec<(ViolationKind, String)> {
    faults_of(body, 64)
}

/// The violations of a kernel.
pub fn faults_of(body: &str, threads: u32) -> Vec<(ViolationKind, String)> {
    let input: Vec<u32> = (0..256).collect();
    let (_, report) = run_with(body, threads, &input, 256, Options::default());
    report.violations.iter().map(|violation| (violation.kind, violation.to_string())).collect()
}

/// `%r32` = thread, `%t0` = address of its input word, `%t1` = address of its output word.
pub const INDEX: &str =
    "mov.u32 %r32, %tid.x; mul.wide.u32 %t2, %r32, 4; add.u64 %t0, %in, %t2; add.u64 %t1, %out, %t2;";

/// Executes an instruction whose operands are `%r0` (result) and `%r1`... (`%h`, `%d`, `%p` likewise) on several rows of
/// operands at once, one lane each, and compares the results.
pub fn check(instruction: &str, rows: &[(&[u64], u64)]) {
    let count = rows.iter().map(|(operands, _)| operands.len()).max().unwrap();
    let mut body = String::from("mov.u32 %r32, %tid.x; mul.wide.u32 %t2, %r32, 64; add.u64 %t0, %in, %t2;\n");
    for operand in 1..=count {
        body += &format!("ld.global.u64 %t3, [%t0+{}];\n", 8 * operand);
        body += &match file(instruction, operand) {
            'h' => format!("cvt.u16.u64 %h{operand}, %t3;\n"),
            'r' => format!("cvt.u32.u64 %r{operand}, %t3;\n"),
            'p' => format!("setp.ne.u64 %p{operand}, %t3, 0;\n"),
            _ => format!("mov.b64 %d{operand}, %t3;\n"),
        };
    }
    body += instruction;
    body += match file(instruction, 0) {
        'h' => "\ncvt.u64.u16 %t4, %h0;",
        'r' => "\ncvt.u64.u32 %t4, %r0;",
        'p' => "\nselp.u64 %t4, 1, 0, %p0;",
        _ => "\nmov.b64 %t4, %d0;",
    };
    body += "\nmul.wide.u32 %t5, %r32, 8; add.u64 %t5, %out, %t5; st.global.u64 [%t5], %t4;";
    let mut input = vec![0u32; 16 * rows.len()];
    for (row, (operands, _)) in rows.iter().enumerate() {
        for (operand, value) in operands.iter().enumerate() {
            let at = 16 * row + 2 * (operand + 1);
            (input[at], input[at + 1]) = (*value as u32, (value >> 32) as u32);
        }
    }
    let output = run(&body, rows.len() as u32, &input, 2 * rows.len());
    for (row, (operands, expected)) in rows.iter().enumerate() {
        let found = u64::from(output[2 * row]) | u64::from(output[2 * row + 1]) << 32;
        assert_eq!(found, *expected, "{instruction} on {operands:#x?}: {found:#x} instead of {expected:#x}");
    }
}

/// The register file of an operand: the letter before its number.
fn file(instruction: &str, operand: usize) -> char {
    let named = |letter: &char| {
        let name = format!("%{letter}{operand}");
        instruction
            .match_indices(&name)
            .any(|(at, _)| !instruction[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    ['h', 'r', 'd', 'p'].into_iter().find(named).unwrap_or_else(|| panic!("`{instruction}` has no operand {operand}"))
}

/// Bits of an f32.
pub fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

/// Bits of an f64.
pub fn d(value: f64) -> u64 {
    value.to_bits()
}

/// Bits of a negative 32-bit number.
pub fn s(value: i32) -> u64 {
    u64::from(value as u32)
}
