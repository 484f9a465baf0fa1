//! Gradients of stacked parameters that the backward pass uses up, and those that it cannot.

use super::{
    harness::{Case, check},
    programs::Builder,
};
use crate::{
    graph::{NodeId, Op, Output, TensorType, differentiate},
    schedule::Plan,
};
use trainc_kernels::{Target, ir::Unary};

const DEPTH: u64 = 3;
const WIDTH: u64 = 32;
/// Bytes of a matrix of one instance.
const SLICE: u64 = WIDTH * WIDTH * 4;

/// `x = tanh(w x)` three times, with the gradient of the mean square of the last x. `finish` is given w and its gradient.
fn chain(finish: impl FnOnce(&mut Builder, NodeId, NodeId)) -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([2, WIDTH]));
    let block = b.g.add_scope("block", DEPTH);
    let carry = b.g.add_carry(block, x, false);
    let (w, layer) = b.layered(block, &[WIDTH, WIDTH]);
    let product = b.contract(carry, layer, "bi,oi>bo");
    let product = b.g.scale(product, 0.1);
    let next = b.g.unary(Unary::Tanh, product);
    b.g.set_next(carry, next);
    let last = b.g.add(Op::Last, &[carry]);
    let square = b.g.times(last, last);
    let loss = b.g.sum_all(square);
    b.report("loss", loss);
    let gradient = differentiate(&mut b.g, loss, &[w]).expect("differentiable")[0].expect("used");
    finish(&mut b, w, gradient);
    b.done(1)
}

fn norm(b: &mut Builder, gradient: NodeId) -> NodeId {
    let square = b.g.times(gradient, gradient);
    b.g.sum_all(square)
}

/// Bytes of the step's part of the arena when stacks are used up in the repeat, and when the root does all.
fn region_bytes(case: &Case) -> [u64; 2] {
    let bytes = |plan: Plan| plan.report.entries[0].peak_bytes;
    [Target::Cpu, Target::Cuda].map(|target| bytes(case.plan_for(target, None)))
}

#[test]
fn an_optimizer_and_a_norm_need_one_slice_of_the_gradient_at_a_time() {
    let case = chain(|b, w, gradient| {
        let norm = norm(b, gradient);
        b.report("norm", norm);
        b.adamw(w, gradient);
    });
    let plan = check(&case);
    let root = case.plan_for(Target::Cuda, None);
    let [inside, outside] = region_bytes(&case);
    assert!(inside < 2 * SLICE && outside > DEPTH * SLICE, "{inside} and {outside} bytes");
    let (moved, left) = (case.run(&plan), case.run(&root));
    for spec in &plan.tensors {
        let ty = TensorType::f32(spec.shape.clone());
        assert_eq!(moved.read(spec.offset, &ty).data, left.read(spec.offset, &ty).data, "{}", spec.name);
    }
}

#[test]
fn readers_of_the_old_slice_run_before_it_is_overwritten() {
    let case = chain(|b, w, gradient| {
        let other = b.state(&[DEPTH, WIDTH, WIDTH]);
        let moved = b.g.times(w, gradient);
        let moved = b.g.plus(other, moved);
        b.adamw(w, gradient);
        b.g.set_output(Output::State(0), moved);
    });
    check(&case);
    let [inside, _] = region_bytes(&case);
    assert!(inside < 2 * SLICE, "{inside} bytes");
}

#[test]
fn what_waits_for_all_slices_keeps_the_gradient_in_the_root() {
    let clipped = chain(|b, w, gradient| {
        let norm = norm(b, gradient);
        let shape = b.g.shape(gradient).to_vec();
        let factor = b.g.unary(Unary::Rsqrt, norm);
        let factor = b.g.broadcast(factor, &[], &shape);
        let gradient = b.g.times(gradient, factor);
        b.adamw(w, gradient);
    });
    let reported = chain(|b, w, gradient| {
        b.report("gradient", gradient);
        b.adamw(w, gradient);
    });
    for case in [clipped, reported] {
        check(&case);
        let [inside, _] = region_bytes(&case);
        assert!(inside > DEPTH * SLICE, "{inside} bytes");
    }
}

#[test]
fn tensors_whose_old_value_is_read_afterwards_are_updated_in_the_root() {
    let case = chain(|b, w, gradient| {
        let norm = norm(b, gradient);
        let shape = b.g.shape(w).to_vec();
        let wide = b.g.broadcast(norm, &[], &shape);
        let product = b.g.times(w, wide);
        let product = b.g.sum_all(product);
        b.report("product", product);
        b.adamw(w, gradient);
    });
    check(&case);
}

#[test]
fn a_gradient_that_becomes_a_state_is_written_there_slice_by_slice() {
    let case = chain(|b, _, gradient| {
        b.state(&[DEPTH, WIDTH, WIDTH]);
        b.g.set_output(Output::State(0), gradient);
    });
    check(&case);
    let [inside, outside] = region_bytes(&case);
    assert!(inside < SLICE && outside < SLICE, "{inside} and {outside} bytes");
}
