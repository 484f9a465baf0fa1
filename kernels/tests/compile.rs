//! Many kernels at once: several compiler threads, one set of symbols, the same bytes every time.

mod support;

use support::buffer;
use trainc_kernels::{
    Options, Target, compile,
    ir::{
        Access::{Read, Write},
        Body, DType, Expr, Exprs, Gemm, Index, Kernel, Precision, Store,
    },
    kernel_facts, workspace_bytes,
};
use trainc_llvm::Llvm;
use trainc_runtime::{
    artifact::Isa,
    code::{LoadedCode, defined_functions},
};

fn product(m: u64, n: u64, k: u64) -> Kernel {
    let mut e = Exprs::default();
    let lhs = e.load(0, Index::linear([(0, 1), (2, m as i64)]));
    let rhs = e.load(1, Index::linear([(2, n as i64), (1, 1)]));
    let value = e.add(Expr::Accumulator(0));
    let stores = vec![Store { buffer: 2, index: Index::linear([(0, n as i64), (1, 1)]), value, accumulate: false }];
    let buffers =
        vec![buffer(DType::F32, m * k, Read), buffer(DType::F32, k * n, Read), buffer(DType::F32, m * n, Write)];
    let (batch, m, n, k) = (vec![], vec![m], vec![n], vec![k]);
    let body = Body::Gemm(Gemm { batch, m, n, k, exprs: e, lhs, rhs, precision: Precision::F32, stores });
    Kernel { label: "product".into(), buffers, body }
}

#[test]
fn objects_are_reproducible_and_their_symbols_unique() {
    let kernels: Vec<Kernel> = [(7, 9, 5), (300, 200, 64), (50, 2000, 300)].map(|(m, n, k)| product(m, n, k)).to_vec();
    let options = Options { modules: 2, ..Options::default() };
    let compiled = compile(&kernels, Isa::X86V3, &Llvm, &options).expect("they compile");
    let again = compile(&kernels, Isa::X86V3, &Llvm, &options).expect("they compile");
    assert!(compiled.objects == again.objects, "the same kernels compile to the same bytes");
    let functions = defined_functions(&compiled.objects).expect("the objects are readable");
    let code = LoadedCode::load(&compiled.objects).expect("the objects need nothing from outside");
    let mut stages = 0;
    for (kernel, spec) in kernels.iter().zip(&compiled.specs) {
        let workspace = workspace_bytes(kernel, Target::Cpu);
        assert_eq!(spec.buffer_bytes.len(), kernel.buffers.len() + usize::from(workspace > 0));
        for stage in &spec.stages {
            assert!(functions.contains(&stage.symbol) && code.symbol(&stage.symbol).is_some(), "{}", stage.symbol);
            assert!(stage.tiles > 0);
            stages += 1;
        }
    }
    assert_eq!(functions.len(), stages, "nothing but stages is visible: {functions:?}");
}

#[test]
fn the_cost_of_a_product_is_two_operations_for_each_multiplication() {
    let facts = kernel_facts(&product(7, 9, 5));
    assert_eq!(facts.flops, 2 * 7 * 9 * 5);
    assert_eq!((facts.bytes_read, facts.bytes_written), (4 * (7 * 5 + 5 * 9), 4 * 7 * 9));
}
