//! Norms and weighted sums of the gradients of single samples, without these gradients.
//!
//! The gradient of a matrix is, for each sample, a contraction `g[b, i, j] = sum over t of x[b, t, i] y[b, t, j]`. Private training
//! asks for its squared norm and for a sum weighted by sample. Which way is cheapest depends on shapes: the gradients
//! themselves take `i * j` numbers a sample, the products of pairs of positions `t * t`.

use super::{Rule, Theme, algebra::full, complement};
use crate::{
    graph::{Contraction, Op},
    rewrite::{
        language::{Egraph, Symbol},
        pattern::{Match, Tree},
    },
};
use egg::Id;
use trainc_kernels::ir::{Binary, ReduceKind};
use trainc_runtime::artifact::DType;

pub(super) static THEME: Theme = Theme {
    name: "per sample",
    purpose: "Norms and weighted sums of per-sample gradients, without forming these where that is cheaper.",
    rules: &[
        Rule {
            name: "ghost-norm",
            law: "sum over i, j of contract(x, y)[b, i, j] * contract(u, v)[b, i, j] = sum over t, s of contract(x, u)[b, t, s] * contract(y, v)[b, t, s]",
            condition: "both contractions keep the labels b that the sum keeps in both operands (Goodfellow 2015; Li et al. 2022)",
            left: "(sum:r (mul (contract:c ?x ?y) (contract:d ?u ?v)))",
            right: |found| ghost_norm(&found),
        },
        Rule {
            name: "square-of-sum",
            law: "sum((g + z)^2) = sum(g * g) + 2 * sum(g * z) + sum(z * z)",
            condition: "g is the gradient of each sample by one of several uses of a matrix",
            left: "(sum:r (mul ?w@(add ?g ?z) ?w))",
            right: |found| {
                is_per_sample(&found, "g", found.reduce_axes("r")).then_some(())?;
                let [gg, gz, zz] =
                    ["(sum:r (mul ?g ?g))", "(sum:r (mul ?g ?z))", "(sum:r (mul ?z ?z))"].map(|text| found.build(text));
                let twice = plus(gz.clone(), gz);
                Some(plus(plus(gg, twice), zz))
            },
        },
        Rule {
            name: "product-with-sum",
            law: "sum(g * (h + z)) = sum(g * h) + sum(g * z)",
            condition: "g and h are gradients of each sample",
            left: "(sum:r (mul ?g (add ?h ?z)))",
            right: |found| {
                let both = ["g", "h"].iter().all(|name| is_per_sample(&found, name, found.reduce_axes("r")));
                both.then_some(())?;
                Some(plus(found.build("(sum:r (mul ?g ?h))"), found.build("(sum:r (mul ?g ?z))")))
            },
        },
        Rule {
            name: "book-keeping",
            law: "sum over b of f[b] * contract(x, y)[b, i, j] = contract(f * x, y)[i, j]",
            condition: "the contraction keeps the label b in both operands (Bu et al. 2023)",
            left: "(sum:r (mul (broadcast:b ?f) (contract:c ?x ?y)))",
            right: |found| book_keeping(&found),
        },
        Rule {
            name: "weighted-sum-of-sum",
            law: "sum over b of f[b] * (g + z)[b, ..] = (sum over b of f[b] * g[b, ..]) + (sum over b of f[b] * z[b, ..])",
            condition: "g is a gradient of each sample",
            left: "(sum:r (mul ?k@(broadcast:b ?f) (add ?g ?z)))",
            right: |found| {
                let (&[weight], &[axis]) = (found.broadcast_axes("b"), found.reduce_axes("r")) else { return None };
                let others = complement(&[axis], found.ty("g").rank());
                (weight == axis && is_per_sample(&found, "g", &others)).then_some(())?;
                Some(plus(found.build("(sum:r (mul ?k ?g))"), found.build("(sum:r (mul ?k ?z))")))
            },
        },
        Rule {
            name: "sum-of-multiple",
            law: "sum((g * a) * h) = sum(g * h) * a",
            condition: "a is constant, g a gradient of each sample, and the sum its product's or its weighted one",
            left: "(sum:r (mul (mul ?g ?a) ?h))",
            right: |found| {
                let factor = found.fact("a").uniform?;
                is_summed_gradient(&found).then_some(())?;
                Some(times(found.build("(sum:r (mul ?g ?h))"), full(&found, factor)))
            },
        },
        Rule {
            name: "product-of-views",
            law: "sum(reshape(g) * reshape(h)) = sum(g * h)",
            condition: "g and h are gradients of each sample and have one shape; the sums keep the first axis alone, and so do the views",
            left: "(sum:r (mul (reshape ?g) (reshape ?h)))",
            right: |found| product_of_views(&found),
        },
        Rule {
            name: "weighted-sum-of-view",
            law: "sum over b of f[b] * reshape(g)[b, ..] = reshape(sum over b of f[b] * g[b, ..])",
            condition: "g is a gradient of each sample; the view keeps the first axis",
            left: "(sum:r (mul (broadcast:b ?f) (reshape ?g)))",
            right: |found| weighted_sum_of_view(&found),
        },
        Rule {
            name: "one-hot-scatter",
            law: "contract(i == index, e) = scatter(i, e)",
            condition: "summed over all that i is indexed by",
            left: "(contract:c (equal (broadcast:b ?i) (iota:k)) ?e)",
            right: |found| one_hot_scatter(&found),
        },
        Rule {
            name: "one-hot-gather",
            law: "contract(i[b, t] == index, y)[b, t, s] = y[b, s, i[b, t]], an element of y looked up by its number",
            condition: "summed over the index alone; y has fewer than 2^31 elements",
            left: "(contract:c (equal (broadcast:b ?i) (iota:k)) ?y)",
            right: |found| one_hot_gather(&found),
        },
        Rule {
            name: "one-hot-pairs",
            law: "contract(i == index, j == index) = (i == j)",
            condition: "summed over the index alone",
            left: "(contract:c (equal (broadcast:b ?i) (iota:k)) (equal (broadcast:d ?j) (iota:l)))",
            right: |found| one_hot_pairs(&found),
        },
    ],
};

fn plus(a: Tree, b: Tree) -> Tree {
    Tree::op(Op::Binary(Binary::Add), [a, b])
}

fn times(a: Tree, b: Tree) -> Tree {
    Tree::op(Op::Binary(Binary::Mul), [a, b])
}

/// The labels of a contraction's result that a reduction over `axes` keeps, if there are some and both operands have them.
fn kept_in_both(c: &Contraction, axes: &[usize]) -> Option<Vec<u8>> {
    let kept: Vec<u8> = complement(axes, c.out.len()).into_iter().map(|axis| c.out[axis]).collect();
    let shared = |label: &u8| c.lhs.contains(label) && c.rhs.contains(label);
    (!kept.is_empty() && kept.iter().all(shared)).then_some(kept)
}

/// Whether a value is a sum, of multiples perhaps, with a contraction in it that keeps, in both operands, what a reduction over `axes` keeps.
fn is_per_sample(found: &Match, name: &str, axes: &[usize]) -> bool {
    /// Uses of a matrix, times points, that are looked through.
    const DEEP: u32 = 8;
    fn search(egraph: &Egraph, class: Id, axes: &[usize], depth: u32) -> bool {
        egraph[class].iter().any(|term| match &term.symbol {
            Symbol::Op(Op::Contract(c)) => kept_in_both(c, axes).is_some(),
            Symbol::Op(Op::Binary(f @ (Binary::Add | Binary::Mul))) if depth > 0 => {
                let multiple = term.children.iter().any(|child| egraph[*child].data.uniform.is_some());
                let seen_through = *f == Binary::Add || multiple;
                seen_through && term.children.iter().any(|&child| search(egraph, child, axes, depth - 1))
            }
            _ => false,
        })
    }
    search(found.egraph, found.class(name), axes, DEEP)
}

/// Whether `g` is a gradient of each sample of which `r` takes the norm or, over its first axis, a weighted sum.
fn is_summed_gradient(found: &Match) -> bool {
    let axes = found.reduce_axes("r");
    let others = complement(axes, found.ty("g").rank());
    is_per_sample(found, "g", axes) || (axes == [0] && is_per_sample(found, "g", &others))
}

/// The axes of a value but the first.
fn all_but_first(found: &Match, name: &str) -> Vec<usize> {
    (1..found.ty(name).rank()).collect()
}

/// The shape of what the sum is of.
fn shape_within(found: &Match) -> Option<Vec<u64>> {
    let Tree::Term(_, operands) = &found.left else { return None };
    Some(found.tree_type(&operands[0]).shape)
}

fn product_of_views(found: &Match) -> Option<Tree> {
    let axes = all_but_first(found, "g");
    let viewed = shape_within(found)?;
    let same = found.ty("g") == found.ty("h") && found.ty("g").shape.first() == viewed.first();
    let kept = found.reduce_axes("r") == complement(&[0], viewed.len());
    let both = ["g", "h"].iter().all(|name| is_per_sample(found, name, &axes));
    let product = times(found.tree("g"), found.tree("h"));
    (same && kept && both).then(|| Tree::op(Op::Reduce { kind: ReduceKind::Sum, axes }, [product]))
}

fn weighted_sum_of_view(found: &Match) -> Option<Tree> {
    let shape = found.ty("g").shape.clone();
    let weighted = found.broadcast_axes("b") == [0] && found.reduce_axes("r") == [0];
    if !weighted
        || shape.first() != shape_within(found)?.first()
        || !is_per_sample(found, "g", &all_but_first(found, "g"))
    {
        return None;
    }
    let weights = Tree::op(Op::Broadcast { axes: vec![0], shape }, [found.tree("f")]);
    let sum = Op::Reduce { kind: ReduceKind::Sum, axes: vec![0] };
    let sum = Tree::op(sum, [times(weights, found.tree("g"))]);
    Some(Tree::op(Op::Reshape { shape: found.tree_type(&found.left).shape }, [sum]))
}

fn summed(c: &Contraction) -> Vec<u8> {
    c.lhs.iter().copied().filter(|label| !c.out.contains(label)).collect()
}

/// Labels of a contraction's result that only one of its operands has.
fn own<'a>(operand: &'a [u8], other: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    operand.iter().copied().filter(|label| !other.contains(label))
}

fn ghost_norm(found: &Match) -> Option<Tree> {
    let (c, d) = (found.contraction("c"), found.contraction("d"));
    let kept = kept_in_both(&c, found.reduce_axes("r"))?;
    kept_in_both(&d, found.reduce_axes("r"))?;
    let place = |label: &u8| c.out.iter().position(|other| other == label);
    // Of the orders in which the operands match, one is enough: the left one has the first axis.
    let first = |operand: &[u8], other: &[u8]| own(operand, other).filter_map(|label| place(&label)).min();
    if first(&c.lhs, &c.rhs)? > first(&c.rhs, &c.lhs)? {
        return None;
    }
    let d = renamed(&d, &c)?;
    let mut sides = [own(&c.lhs, &c.rhs).collect::<Vec<u8>>(), own(&d.lhs, &d.rhs).collect()];
    sides.iter_mut().for_each(|labels| labels.sort_unstable());
    let (times_c, times_d) = (summed(&c), summed(&d));
    if sides[0] != sides[1] || times_c.is_empty() || times_d.is_empty() {
        return None;
    }
    // Labels that both operands and the result have, but the norm does not keep, such as heads.
    let shared = c.out.iter().copied().filter(|l| c.lhs.contains(l) && c.rhs.contains(l) && !kept.contains(l));
    let out: Vec<u8> = kept.iter().copied().chain(shared).chain(times_c).chain(times_d).collect();
    let pairs = |lhs: &[u8], rhs: &[u8], operands: [&str; 2]| {
        let labels = Contraction { lhs: lhs.to_vec(), rhs: rhs.to_vec(), out: out.clone(), precision: c.precision };
        Tree::op(Op::Contract(labels), operands.map(|name| found.tree(name)))
    };
    let product = times(pairs(&c.lhs, &d.lhs, ["x", "u"]), pairs(&c.rhs, &d.rhs, ["y", "v"]));
    let axes = (kept.len()..out.len()).collect();
    Some(Tree::op(Op::Reduce { kind: ReduceKind::Sum, axes }, [product]))
}

/// A contraction in the labels of another one with the same result; its summed labels get numbers that both lack.
fn renamed(d: &Contraction, c: &Contraction) -> Option<Contraction> {
    let taken = |label: &u8| c.lhs.contains(label) || c.rhs.contains(label);
    let free: Vec<u8> = (0..=u8::MAX).filter(|label| !taken(label)).collect();
    let times = summed(d);
    if times.len() > free.len() || d.out.len() != c.out.len() {
        return None;
    }
    let rename = |label: &u8| match d.out.iter().position(|other| other == label) {
        Some(axis) => c.out[axis],
        None => free[times.iter().position(|other| other == label).expect("what is not kept is summed")],
    };
    let all = |labels: &[u8]| labels.iter().map(rename).collect();
    Some(Contraction { lhs: all(&d.lhs), rhs: all(&d.rhs), out: c.out.clone(), precision: d.precision })
}

/// The one label that a weight has and the sum is over, if both operands of the contraction have it.
fn weighted_label(found: &Match) -> Option<u8> {
    let c = found.contraction("c");
    let (&[weight], &[axis]) = (found.broadcast_axes("b"), found.reduce_axes("r")) else { return None };
    let label = c.out[axis];
    (weight == axis && c.lhs.contains(&label) && c.rhs.contains(&label)).then_some(label)
}

fn book_keeping(found: &Match) -> Option<Tree> {
    let label = weighted_label(found)?;
    let c = found.contraction("c");
    let axis = c.lhs.iter().position(|other| *other == label)?;
    let shape = found.ty("x").shape.clone();
    let weights = Tree::op(Op::Broadcast { axes: vec![axis], shape }, [found.tree("f")]);
    let out = c.out.iter().copied().filter(|other| *other != label).collect();
    let labels = Contraction { out, ..c };
    Some(Tree::op(Op::Contract(labels), [times(weights, found.tree("x")), found.tree("y")]))
}

/// The axis of an index, and the labels of all others, of a comparison with an index.
fn one_hot(found: &Match, labels: &[u8], index: &str, copied: &str) -> Option<(u8, Vec<u8>)> {
    let Symbol::Op(Op::Iota { axis, .. }) = found.head(index) else { return None };
    let axes = found.broadcast_axes(copied);
    (axes == complement(&[*axis], labels.len())).then(|| (labels[*axis], axes.iter().map(|&at| labels[at]).collect()))
}

fn one_hot_scatter(found: &Match) -> Option<Tree> {
    let c = found.contraction("c");
    let (row, ids) = one_hot(found, &c.lhs, "k", "b")?;
    let all_summed = ids.iter().all(|label| c.rhs.contains(label) && !c.out.contains(label));
    if !all_summed || !c.out.contains(&row) || c.rhs.contains(&row) {
        return None;
    }
    let rest: Vec<u8> = c.rhs.iter().copied().filter(|label| !ids.contains(label)).collect();
    let updates = permuted(found.tree("e"), &c.rhs, &[ids.as_slice(), &rest].concat());
    let Symbol::Op(Op::Iota { axis, shape }) = found.head("k") else { return None };
    let sums = Tree::op(Op::Scatter { rows: shape[*axis] }, [found.tree("i"), updates]);
    Some(permuted(sums, &[&[row], rest.as_slice()].concat(), &c.out))
}

/// `y` as one list, in which the element with indices `rest` and `row` has number `position of rest * rows + row`.
fn one_hot_gather(found: &Match) -> Option<Tree> {
    let c = found.contraction("c");
    let (row, ids) = one_hot(found, &c.lhs, "k", "b")?;
    let kept = ids.iter().all(|label| c.out.contains(label));
    let elements = found.ty("y").elements();
    if !kept || c.out.contains(&row) || !c.rhs.contains(&row) || elements > i32::MAX as u64 {
        return None;
    }
    let rest: Vec<u8> = c.rhs.iter().copied().filter(|label| *label != row).collect();
    let shape = found.tree_type(&found.left).shape;
    let of = |label: &u8| c.out.iter().position(|out| out == label);
    let mut stride = found.ty("y").shape[c.rhs.iter().position(|label| *label == row)?];
    let mut number = spread(found.tree("i"), &ids, &c.out, &shape);
    for axis in rest.iter().rev().filter_map(of) {
        let index = Tree::op(Op::Iota { axis, shape: shape.clone() }, []);
        number = plus(number, times(index, integer(stride, &shape)));
        stride *= shape[axis];
    }
    let ordered = permuted(found.tree("y"), &c.rhs, &[rest.as_slice(), &[row]].concat());
    let list = Tree::op(Op::Reshape { shape: vec![elements] }, [ordered]);
    Some(Tree::op(Op::Gather, [list, number]))
}

/// A whole number, of this shape.
fn integer(value: u64, shape: &[u64]) -> Tree {
    let constant = Tree::op(Op::Constant { value: (value as f64).into(), dtype: DType::I32 }, []);
    Tree::op(Op::Broadcast { axes: Vec::new(), shape: shape.to_vec() }, [constant])
}

/// A value with these labels, copied along the others of `out`.
fn spread(x: Tree, labels: &[u8], out: &[u8], shape: &[u64]) -> Tree {
    let place = |label: &u8| out.iter().position(|other| other == label);
    let mut sorted = labels.to_vec();
    sorted.sort_unstable_by_key(place);
    let axes = sorted.iter().filter_map(place).collect();
    Tree::op(Op::Broadcast { axes, shape: shape.to_vec() }, [permuted(x, labels, &sorted)])
}

fn one_hot_pairs(found: &Match) -> Option<Tree> {
    let c = found.contraction("c");
    let (row, left) = one_hot(found, &c.lhs, "k", "b")?;
    let (other, right) = one_hot(found, &c.rhs, "l", "d")?;
    let kept = left.iter().chain(&right).all(|label| c.out.contains(label));
    if row != other || c.out.contains(&row) || !kept {
        return None;
    }
    let shape = found.tree_type(&found.left).shape;
    let [i, j] = [("i", left), ("j", right)].map(|(name, ids)| spread(found.tree(name), &ids, &c.out, &shape));
    Some(Tree::op(Op::Binary(Binary::Equal), [i, j]))
}

fn permuted(x: Tree, from: &[u8], to: &[u8]) -> Tree {
    let axes: Vec<usize> = to.iter().filter_map(|label| from.iter().position(|other| other == label)).collect();
    if axes.is_sorted() { x } else { Tree::op(Op::Permute { axes }, [x]) }
}
