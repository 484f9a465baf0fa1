//! `spec/graph.md` is printed from the table of operations.

use super::*;
use std::fmt::Write;

const HEAD: &str = "\
# The graph's operations

What a training step is made of between the checker and the schedule. A graph is a DAG of the operations below on f32 and
i32 tensors; repeats, and how values enter, pass through and leave them, are described in the documentation of
`compiler/src/graph`. `x`, `a`, ... are operands, `y` is the result, `g` its gradient. Extents are at least 1, a tensor has
at most 16 axes and fewer than 2^40 elements.

Sums are taken in f32, in an order that the plan fixes and no number of threads changes. However many terms `Reduce`, `Contract`
and `Scatter` add, up to 2^24, and `SumInstances`, up to 2^16: a sum is wrong by less than 1e-5 of the sum of its terms'
magnitudes. Attention adds along the keys without corrections, which makes n equal terms wrong by up to n / 2^26.

Where a function has a kink, its gradient is a choice. Operands of `max` and `min` that are equal get half each, and `abs` passes
nothing at 0, so that `max(x, y) = (x + y + |x - y|) / 2` holds for gradients too. Beside a constant an equal operand gets
nothing: `max(x, 0)` passes no gradient at 0, as a rectifier does elsewhere. A maximum over axes passes all of it to the first
of equal elements, as max pooling does.

In f32 a gradient is finite where the function saturates: `tanh` and `sigmoid` reach their limits exactly, their derivatives by
the value vanish there, and a power multiplies what it is given factor by factor, so that 0 stays 0.

Printed from the table in `compiler/src/graph/ops`; `BLESS=1 cargo test -p trainc page` writes it anew.

| operation | operands | result | value | gradient |
| --- | --- | --- | --- | --- |
";

#[test]
fn the_page_of_operations_is_current() {
    let mut page = HEAD.to_string();
    for Doc { name, operands, result, meaning, gradient } in docs() {
        writeln!(page, "| `{name}` | {operands} | {result} | {meaning} | {gradient} |").expect("a string can grow");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/graph.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &page).expect("spec/ can be written");
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page, "run with BLESS=1 to write it anew");
}
