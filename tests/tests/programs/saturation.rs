//! The library where f32 saturates: values and gradients of everything in it, on each instruction set of the processor.

use trainc::compile::{Compilation, Provenance};
use trainc_kernels::{Caches, host_isa};
use trainc_llvm::Llvm;
use trainc_runtime::{Options, Session, artifact::Isa};
use trainc_tests::{extremes::Extremes, program};

#[test]
fn everything_in_the_library_stays_finite_and_right_where_f32_saturates() {
    let extremes = Extremes::new();
    let truths = extremes.truths();
    for precision in ["f32", "bf16"] {
        let mut compilation = program::compile("extremes", &extremes.text(precision), &[]);
        for isa in [Isa::X86V3, Isa::X86V4, Isa::X86V4Bf16].into_iter().filter(|&isa| isa <= host_isa()) {
            let mut session = session(&mut compilation, isa);
            extremes.check(&truths, &format!("{isa:?}"), precision, &mut session);
        }
    }
}

fn session(compilation: &mut Compilation, isa: Isa) -> Session {
    let provenance = Provenance { text: String::new(), settings: vec![], digest: "extremes".into() };
    let artifact = compilation.artifact(&[isa], Caches::PORTABLE, &provenance, &Llvm);
    let artifact = artifact.unwrap_or_else(|error| panic!("{isa:?}: {error}"));
    Session::new(artifact, &Options::default()).unwrap_or_else(|error| panic!("{isa:?}: {error}"))
}
