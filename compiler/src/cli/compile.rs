//! `trainc compile`: a program's artifact, or one of the forms it takes on the way.

use super::{
    arguments::{Compile, Emit},
    failure::Failure,
    output, sources,
};
use std::path::PathBuf;
use trainc::compile::Compilation;
use trainc_runtime::artifact::Isa;

/// Compiles a program and writes its artifact, or prints what `--emit` names.
pub fn compile(arguments: &Compile) -> Result<(), Failure> {
    let isas = targets(&arguments.target)?;
    let (mut compilation, _, provenance) = sources::compile(&arguments.program)?;
    if let Some(form) = arguments.emit {
        return emit(&compilation, form, isas[0]);
    }
    let artifact = compilation.artifact(&isas, &provenance).map_err(Failure::run)?;
    let path = arguments.output.clone().unwrap_or_else(|| default_output(arguments));
    artifact.write(&path).map_err(Failure::run)?;
    let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    eprintln!("wrote {} ({})", path.display(), output::bytes(size));
    if arguments.json {
        output::json(&compilation.summary());
    }
    Ok(())
}

fn default_output(arguments: &Compile) -> PathBuf {
    PathBuf::from(arguments.program.file.file_name().unwrap_or_default()).with_extension("trainx")
}

/// Reads `--target`: `cpu`, `cpu:v3`, `cpu:v4`, `cpu:v4-bf16`, several joined by commas.
fn targets(text: &str) -> Result<Vec<Isa>, Failure> {
    let mut isas = text.split(',').map(target).collect::<Result<Vec<_>, _>>()?;
    // Best first: the runtime takes the first variant that the processor can execute.
    isas.sort_by(|a, b| b.cmp(a));
    isas.dedup();
    Ok(isas)
}

fn target(name: &str) -> Result<Isa, Failure> {
    match name.trim() {
        "cpu" => Ok(trainc_kernels::host_isa()),
        "cpu:v3" => Ok(Isa::X86V3),
        "cpu:v4" => Ok(Isa::X86V4),
        "cpu:v4-bf16" => Ok(Isa::X86V4Bf16),
        other if other.starts_with("cuda") => {
            Err(Failure::misuse(format!("target {other}: this version generates code for the CPU only")))
        }
        other => Err(Failure::misuse(format!("unknown target {other}; known: cpu, cpu:v3, cpu:v4, cpu:v4-bf16"))),
    }
}

fn emit(compilation: &Compilation, form: Emit, isa: Isa) -> Result<(), Failure> {
    match form {
        Emit::Graph => print!("{}", compilation.program.step),
        Emit::Rewrites => {
            for (name, rewritten) in &compilation.entries {
                println!("// {name}\n{}", rewritten.graph);
                output::json(&rewritten.report);
            }
        }
        Emit::Kernels => {
            for (number, kernel) in compilation.plan.kernels.iter().enumerate() {
                println!("// kernel {number}: {}\n{kernel:#?}\n", kernel.label);
            }
        }
        Emit::Mlir => print_kernels(compilation, |kernel| trainc_kernels::lower_to_mlir(kernel, isa))?,
        Emit::Asm => print_kernels(compilation, |kernel| trainc_kernels::assembly(kernel, isa))?,
    }
    Ok(())
}

fn print_kernels<E: std::fmt::Display>(
    compilation: &Compilation,
    lower: impl Fn(&trainc_kernels::ir::Kernel) -> Result<String, E>,
) -> Result<(), Failure> {
    for (number, kernel) in compilation.plan.kernels.iter().enumerate() {
        println!("// kernel {number}: {}\n{}", kernel.label, lower(kernel).map_err(Failure::run)?);
    }
    Ok(())
}
