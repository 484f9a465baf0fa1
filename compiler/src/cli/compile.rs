//! `trainc compile`: a program's artifact, or one of the forms it takes on the way.

use super::{
    arguments::{Compile, Emit},
    codegen::Generator,
    failure::Failure,
    output, sources, target,
};
use std::{
    io::Read,
    path::{Path, PathBuf},
};
use trainc::compile::Compilation;
use trainc_kernels::{Caches, CodegenError, Options, ir::Kernel};
use trainc_runtime::{
    artifact::{Isa, MAGIC},
    files,
};

/// Compiles a program and writes its artifact, or prints what `--emit` names.
pub fn compile(arguments: &Compile) -> Result<(), Failure> {
    let (target, isas) = target::parse(&arguments.target)?;
    let caches = target::caches(&arguments.target);
    if let Some(form) = arguments.emit {
        return emit(&sources::compile_for(&arguments.program, target)?.0, form, isas[0], caches);
    }
    let path = arguments.out.clone().unwrap_or_else(|| default_output(arguments));
    spare_other_files(&path)?;
    let generator = Generator::start();
    let (mut compilation, _, provenance) = sources::compile_for(&arguments.program, target)?;
    let artifact = compilation.artifact(&isas, caches, &provenance, &generator).map_err(Failure::run)?;
    artifact.write(&path).map_err(Failure::run)?;
    let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    output::note(format_args!("wrote {} ({})", path.display(), output::bytes(size)));
    if arguments.json {
        output::json(&compilation.summary());
    }
    Ok(())
}

/// Refuses to replace what holds something else than an artifact: a program or data may have no copy.
fn spare_other_files(path: &Path) -> Result<(), Failure> {
    let mut start = Vec::new();
    let begins = files::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    if begins.is_err() || start.is_empty() || start == MAGIC {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::misuse(format!("{path} is there and is no artifact: give another `--out`, or remove it first")))
}

fn default_output(arguments: &Compile) -> PathBuf {
    PathBuf::from(arguments.program.file.file_name().unwrap_or_default()).with_extension("trainx")
}

fn emit(compilation: &Compilation, form: Emit, isa: Isa, caches: Caches) -> Result<(), Failure> {
    match form {
        Emit::Graph => output::text(&compilation.program.step),
        Emit::Rewrites => {
            for (name, rewritten) in &compilation.entries {
                output::line(format_args!("// {name}\n{}", rewritten.graph));
                output::json(&rewritten.report);
            }
        }
        Emit::Kernels => {
            for (number, kernel) in compilation.plan.kernels.iter().enumerate() {
                output::line(format_args!("// kernel {number}: {}\n{kernel:#?}\n", kernel.label));
            }
        }
        Emit::Mlir => print_kernels(compilation, mlir(&compilation.plan.kernels, isa, caches))?,
        Emit::Asm | Emit::Ptx if isa.is_cuda() != (form == Emit::Ptx) => return Err(wrong_machine(form)),
        Emit::Asm => {
            let generator = Generator::start();
            print_kernels(compilation, trainc_kernels::assembly(&compilation.plan.kernels, isa, caches, &generator))?
        }
        Emit::Ptx => print_module(compilation, isa)?,
    }
    Ok(())
}

/// One module that can be assembled as it is.
fn print_module(compilation: &Compilation, isa: Isa) -> Result<(), Failure> {
    let options = Options { modules: 1, ..Options::default() };
    let compiled =
        trainc_kernels::compile(&compilation.plan.kernels, isa, &Generator::start(), &options).map_err(Failure::run)?;
    for (number, kernel) in compilation.plan.kernels.iter().enumerate() {
        output::line(format_args!("// k{number}: {}", kernel.label));
    }
    compiled.objects.iter().for_each(|object| output::text(String::from_utf8_lossy(object)));
    Ok(())
}

fn wrong_machine(form: Emit) -> Failure {
    Failure::misuse(match form {
        Emit::Ptx => "--emit ptx prints device code: add --target cuda:sm_80, or use --emit asm for the processor's",
        _ => "--emit asm prints the processor's code; a device's is printed by --emit ptx",
    })
}

fn mlir(kernels: &[Kernel], isa: Isa, caches: Caches) -> Result<Vec<String>, CodegenError> {
    kernels.iter().map(|kernel| trainc_kernels::lower_to_mlir(kernel, isa, caches)).collect()
}

fn print_kernels(compilation: &Compilation, texts: Result<Vec<String>, CodegenError>) -> Result<(), Failure> {
    let texts = texts.map_err(Failure::run)?;
    for (number, (kernel, text)) in compilation.plan.kernels.iter().zip(texts).enumerate() {
        output::line(format_args!("// kernel {number}: {}\n{text}", kernel.label));
    }
    Ok(())
}
