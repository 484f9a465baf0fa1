//! Device code of every example, assembled by NVIDIA's `ptxas` and held to budgets. `make test-ptxas` installs the tools
//! and runs this; without them the test is ignored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};
use trainc::compile::Compilation;
use trainc_kernels::{
    Target,
    ir::{Body, Kernel, Precision},
    tensor_precision,
};
use trainc_llvm::Llvm;
use trainc_runtime::artifact::{Isa, KernelSpec};
use trainc_tests::program;

/// The folder of `ptxas` and `nvdisasm`.
const TOOLS: &str = "TRAINC_CUDA_TOOLS";

/// What an entry of a kernel may cost and must contain.
struct Budget {
    kernel: &'static str,
    registers: u32,
    shared_bytes: u32,
    /// Instructions of which each must occur, by the beginning of their names.
    required: &'static [&'static str],
}

/// By the kind of kernel. Registers are what assembled code was seen to need on any of the devices, rounded up to eight.
const BUDGETS: [Budget; 10] = [
    Budget { kernel: "nest", registers: 168, shared_bytes: 12 << 10, required: &["STG"] },
    Budget { kernel: "product in f32", registers: 216, shared_bytes: 64 << 10, required: &["FFMA", "BAR.SYNC"] },
    Budget {
        kernel: "product in tf32",
        registers: 255,
        shared_bytes: 64 << 10,
        required: &["HMMA.1688.F32.TF32", "LDS", "BAR.SYNC"],
    },
    Budget {
        kernel: "product in bf16",
        registers: 255,
        shared_bytes: 64 << 10,
        required: &["HMMA.16816.F32.BF16", "LDSM.16", "BAR.SYNC"],
    },
    Budget { kernel: "attention", registers: 216, shared_bytes: 64 << 10, required: &["FFMA", "LDS.128", "SHFL"] },
    Budget { kernel: "attention backward", registers: 216, shared_bytes: 64 << 10, required: &["FFMA", "LDS.128"] },
    Budget {
        kernel: "attention in tf32",
        registers: 255,
        shared_bytes: 72 << 10,
        required: &["HMMA.1688.F32.TF32", "SHFL"],
    },
    Budget {
        kernel: "attention backward in tf32",
        registers: 255,
        shared_bytes: 72 << 10,
        required: &["HMMA.1688.F32.TF32"],
    },
    Budget {
        kernel: "attention in bf16",
        registers: 255,
        shared_bytes: 72 << 10,
        required: &["HMMA.16816.F32.BF16", "LDSM.16.M88", "LDSM.16.MT88", "SHFL"],
    },
    Budget {
        kernel: "attention backward in bf16",
        registers: 255,
        shared_bytes: 72 << 10,
        required: &["HMMA.16816.F32.BF16", "LDSM.16.M88", "LDSM.16.MT88"],
    },
];

/// Local memory (spills, stacks) and calls of functions. `CALL.REL` is the assembler's own slow path of exact division.
const FORBIDDEN: [&str; 3] = ["LDL", "STL", "CALL.ABS"];

/// What each program must contain somewhere: vectors of 16 bytes, asynchronous copies.
const SOMEWHERE: [(&str, &[&str]); 2] = [
    ("gpt2_124m", &["LDG.E.128", "HMMA.16816.F32.BF16", "LDSM.16.MT88"]),
    ("gpt_rust", &["LDGSTS.E.BYPASS.128", "LDS.128"]),
];

fn kind(kernel: &Kernel) -> &'static str {
    match &kernel.body {
        Body::Nest(_) | Body::Batch(_) => "nest",
        Body::Gemm(gemm) => match gemm.precision {
            Precision::F32 => "product in f32",
            Precision::Tf32 => "product in tf32",
            Precision::Bf16 => "product in bf16",
        },
        Body::Attention(_) => match tensor_precision(kernel) {
            Some(Precision::Tf32) => "attention in tf32",
            Some(_) => "attention in bf16",
            None => "attention",
        },
        Body::AttentionBackward(_) => match tensor_precision(kernel) {
            Some(Precision::Tf32) => "attention backward in tf32",
            Some(_) => "attention backward in bf16",
            None => "attention backward",
        },
    }
}

/// What the assembler says of an entry, and the instructions that it made.
#[derive(Default, Debug)]
struct Assembled {
    registers: u32,
    spilled: bool,
    opcodes: Vec<String>,
}

#[test]
#[ignore = "needs NVIDIA's assembler: make test-ptxas"]
fn every_kernel_of_every_example_assembles_within_its_budget() {
    let tools = PathBuf::from(std::env::var(TOOLS).unwrap_or_else(|_| panic!("{TOOLS} names no folder")));
    let mut faults = Vec::new();
    for path in program::programs("dsl-examples") {
        let name = program::stem(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        faults.extend(faults_of(&tools, &name, &text));
        if name == "gpt2_124m" {
            let text = text.replace("precision bf16", "precision tf32");
            faults.extend(faults_of(&tools, "gpt2_124m in tf32", &text));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is wrong with the code of a program for three devices.
fn faults_of(tools: &Path, name: &str, text: &str) -> Vec<String> {
    let checked = program::check(name, text, &[]).unwrap_or_else(|found| panic!("{found}"));
    let compilation = Compilation::for_target(checked, Target::Cuda).unwrap_or_else(|error| panic!("{name}: {error}"));
    std::thread::scope(|scope| {
        let compilation = &compilation;
        let examined =
            [Isa::Sm80, Isa::Sm90, Isa::Sm100].map(|isa| scope.spawn(move || examine(tools, name, compilation, isa)));
        examined.into_iter().flat_map(|thread| thread.join().expect("examined")).collect()
    })
}

fn examine(tools: &Path, name: &str, compilation: &Compilation, isa: Isa) -> Vec<String> {
    let options = trainc_kernels::Options { modules: 1, ..trainc_kernels::Options::default() };
    let compiled = trainc_kernels::compile(&compilation.plan.kernels, isa, &Llvm, &options).unwrap();
    let [ptx] = &compiled.objects[..] else { panic!("one module was asked for") };
    let assembled = assemble(tools, ptx, isa);
    let mut faults = Vec::new();
    for (kernel, spec) in compilation.plan.kernels.iter().zip(&compiled.specs) {
        let place = format!("{name}, {isa:?}, {} `{}`", kind(kernel), kernel.label);
        faults.extend(over_budget(kernel, spec, &assembled).into_iter().map(|fault| format!("{place}: {fault}")));
    }
    let contains =
        |wanted: &&str| assembled.values().any(|entry| entry.opcodes.iter().any(|op| op.starts_with(wanted)));
    let wanted = SOMEWHERE.iter().filter(|(program, _)| *program == name).flat_map(|(_, wanted)| *wanted);
    faults.extend(
        wanted.filter(|wanted| !contains(wanted)).map(|wanted| format!("{name}, {isa:?}: no {wanted} anywhere")),
    );
    faults
}

fn over_budget(kernel: &Kernel, spec: &KernelSpec, assembled: &BTreeMap<String, Assembled>) -> Vec<String> {
    let budget = BUDGETS.iter().find(|budget| budget.kernel == kind(kernel)).expect("every kind has a budget");
    let mut faults = Vec::new();
    let mut opcodes = Vec::new();
    for stage in &spec.stages {
        let entry = assembled.get(&stage.symbol).unwrap_or_else(|| panic!("{} was not assembled", stage.symbol));
        let block = stage.block.expect("device code has blocks");
        opcodes.extend(&entry.opcodes);
        if entry.spilled {
            faults.push(format!("{} spills registers", stage.symbol));
        }
        if entry.registers > budget.registers || entry.registers * block.threads > 65_536 {
            faults.push(format!("{} registers of {}", entry.registers, budget.registers));
        }
        if block.shared_bytes > budget.shared_bytes {
            faults.push(format!("{} bytes of shared memory of {}", block.shared_bytes, budget.shared_bytes));
        }
    }
    let occurs = |opcode: &&str| opcodes.iter().any(|op| op.starts_with(opcode));
    faults.extend(budget.required.iter().filter(|opcode| !occurs(opcode)).map(|opcode| format!("no {opcode}")));
    faults.extend(FORBIDDEN.iter().filter(|opcode| occurs(opcode)).map(|opcode| format!("has {opcode}")));
    faults
}

/// Assembles and takes apart a module.
fn assemble(tools: &Path, ptx: &[u8], isa: Isa) -> BTreeMap<String, Assembled> {
    let folder = tempfile::tempdir().unwrap();
    let (source, code) = (folder.path().join("kernels.ptx"), folder.path().join("kernels.cubin"));
    std::fs::write(&source, ptx).unwrap();
    let arch = format!("-arch=sm_{}", isa.capability().unwrap());
    let output = Command::new(tools.join("ptxas")).args(["-v", &arch, "-o"]).arg(&code).arg(&source).output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ptxas refuses the code for {isa:?}: {report}");
    let mut entries = reports(&report);
    let output = Command::new(tools.join("nvdisasm")).arg("-c").arg(&code).output().unwrap();
    assert!(output.status.success(), "nvdisasm: {}", String::from_utf8_lossy(&output.stderr));
    for (name, opcodes) in opcodes(&String::from_utf8_lossy(&output.stdout)) {
        entries.entry(name).or_default().opcodes = opcodes;
    }
    entries
}

/// The lines of `ptxas -v` about each entry.
fn reports(text: &str) -> BTreeMap<String, Assembled> {
    let mut entries: BTreeMap<String, Assembled> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            current = rest.split('\'').next().unwrap_or_default().into();
        }
        let entry = entries.entry(current.clone()).or_default();
        if let Some((_, rest)) = line.split_once("Used ") {
            entry.registers = rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        if line.contains("spill stores") {
            entry.spilled = !line.contains("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
        }
    }
    entries.remove("");
    entries
}

/// The instructions of each entry, without operands and predicates.
fn opcodes(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix(".section\t.text.").or(line.trim().strip_prefix(".text.")) {
            current = name.split([',', ':']).next().unwrap_or_default().into();
        }
        let Some((_, instruction)) = line.trim().strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else {
            continue;
        };
        let mut words = instruction.split_whitespace();
        let opcode = words.next().and_then(|word| if word.starts_with('@') { words.next() } else { Some(word) });
        entries.entry(current.clone()).or_default().extend(opcode.map(|op| op.trim_end_matches(';').to_owned()));
    }
    entries
}
