//! Attention and its gradient, recognised from a softmax between two contractions.
//!
//! The operations want q as `[b, h, t, e]` and keys as `[b, g, s, e]`. Labels say which axis is which: those of q, k and
//! the scores are batch or key-head axes, the summed one is the channel, the softmax goes along the keys; of the labels
//! that only q has, one counts queries and the others the query heads of a key head.

use super::{Rule, Theme, algebra::full_of};
use crate::{
    graph::{AttentionSpec, Contraction, Mask, Op},
    rewrite::{
        language::{SoftmaxSpec, Symbol},
        pattern::{Match, Tree},
    },
};

pub(super) static THEME: Theme = Theme {
    name: "attention",
    purpose: "Recognises attention and its gradient, so that no matrix of scores is ever stored.",
    rules: &[
        Rule {
            name: "attention",
            law: "contract(softmax(contract(q, k)), v) = attention(q, k, v)",
            condition: "labels as batch, heads, queries, keys and channels; values have as many channels as keys",
            left: "(contract:out (softmax:s (contract:scores ?q ?k)) ?v)",
            right: |found| {
                let frame = Frame::new(&found)?;
                let out = frame.aligned(&found.contraction("out"))?;
                let fits = frame.is_values(&out.other) && same_labels(&out.result, &frame.output());
                if !fits || found.ty("v").elements() != frame.size(&frame.values_order()) {
                    return None;
                }
                let attention = frame.attention(&found, frame.values(&found, found.tree("v"), &out.other));
                Some(frame.spread(Tree::Term(Symbol::Result(0), vec![attention]), &frame.output(), &out.result))
            },
        },
        Rule {
            name: "attention-gradient-of-queries",
            law: "contract(softmax_gradient(p, contract(do, v)), k) = dq of attention_backward / scale, where p = softmax(contract(q, k))",
            condition: "as of attention",
            left: "(contract:d (softmax_gradient ?p@(softmax:s (contract:scores ?q ?k)) (contract:dp ?do ?v)) ?k)",
            right: |found| gradient_of_scores(&found, "k", |frame| (frame.k.clone(), frame.queries_order(), 0)),
        },
        Rule {
            name: "attention-gradient-of-keys",
            law: "contract(softmax_gradient(p, contract(do, v)), q) = dk of attention_backward / scale, where p = softmax(contract(q, k))",
            condition: "as of attention",
            left: "(contract:d (softmax_gradient ?p@(softmax:s (contract:scores ?q ?k)) (contract:dp ?do ?v)) ?q)",
            right: |found| gradient_of_scores(&found, "q", |frame| (frame.q.clone(), frame.keys_order(), 1)),
        },
        Rule {
            name: "attention-gradient-of-values",
            law: "contract(softmax(contract(q, k)), do) = dv of attention_backward",
            condition: "as of attention; an attention_backward of this q, k and do is known",
            left: "(contract:d (softmax:s (contract:scores ?q ?k)) ?do)",
            right: gradient_of_values,
        },
    ],
};

/// Label of the channels of values and results, which the contraction of scores does not have.
const CHANNEL: u8 = u8::MAX;

/// Which label of the contraction of scores means what.
struct Frame {
    /// Labels of the scores' axes, of q's and of k's.
    scores: Vec<u8>,
    q: Vec<u8>,
    k: Vec<u8>,
    /// In q, k and scores. The first is the batch, the others are key heads.
    batch: Vec<u8>,
    /// In q and scores: query heads of a key head.
    group: Vec<u8>,
    query: u8,
    key: u8,
    /// Summed.
    channel: u8,
    /// Extent of each label.
    extents: Vec<(u8, u64)>,
    spec: AttentionSpec,
}

/// A contraction with the scores (or their gradient), in the labels of the frame.
struct Aligned {
    other: Vec<u8>,
    result: Vec<u8>,
}

impl Frame {
    /// Reads the contraction `scores` of `q` and `k` under softmax `s`.
    fn new(found: &Match) -> Option<Frame> {
        let Symbol::Softmax(softmax) = found.head("s") else { return None };
        let Contraction { lhs: q, rhs: k, out: scores, precision } = found.contraction("scores");
        let &[key_axis] = softmax.axes.as_slice() else { return None };
        let key = scores[key_axis];
        let batch: Vec<u8> = q.iter().copied().filter(|l| k.contains(l) && scores.contains(l)).collect();
        let summed: Vec<u8> = q.iter().copied().filter(|label| !scores.contains(label)).collect();
        let private: Vec<u8> = scores.iter().copied().filter(|l| q.contains(l) && !k.contains(l)).collect();
        let &[channel] = summed.as_slice() else { return None };
        let of_keys: Vec<u8> = scores.iter().copied().filter(|l| k.contains(l) && !q.contains(l)).collect();
        if of_keys != [key] {
            return None;
        }
        let shapes = [(&q, found.ty("q")), (&k, found.ty("k"))];
        let labelled = |(labels, ty): (&Vec<u8>, &crate::graph::TensorType)| -> Vec<(u8, u64)> {
            labels.iter().copied().zip(ty.shape.iter().copied()).collect()
        };
        let extents: Vec<(u8, u64)> = shapes.into_iter().flat_map(labelled).collect();
        let (mask, query) = masked(softmax, key_axis, &scores, &extents, &private)?;
        let group = private.into_iter().filter(|&label| label != query).collect();
        let spec = AttentionSpec { scale: softmax.scale, mask, precision };
        Some(Frame { scores, q, k, batch, group, query, key, channel, extents, spec })
    }

    fn extent(&self, label: u8) -> u64 {
        let label = if label == CHANNEL { self.channel } else { label };
        let found = self.extents.iter().find(|(known, _)| *known == label);
        found.unwrap_or_else(|| panic!("internal: label {label} has no extent")).1
    }

    fn size(&self, labels: &[u8]) -> u64 {
        labels.iter().map(|&label| self.extent(label)).product()
    }

    /// Labels of the result, in the operation's order.
    fn output(&self) -> Vec<u8> {
        [self.batch.as_slice(), &self.group, &[self.query, CHANNEL]].concat()
    }

    fn queries_order(&self) -> Vec<u8> {
        [self.batch.as_slice(), &self.group, &[self.query, self.channel]].concat()
    }

    fn keys_order(&self) -> Vec<u8> {
        [self.batch.as_slice(), &[self.key, self.channel]].concat()
    }

    fn values_order(&self) -> Vec<u8> {
        [self.batch.as_slice(), &[self.key, CHANNEL]].concat()
    }

    fn is_values(&self, labels: &[u8]) -> bool {
        same_labels(labels, &self.values_order())
    }

    /// The four extents of an operand whose axes lie in this order.
    fn shape(&self, order: &[u8]) -> Vec<u64> {
        let (heads, rest) = order.split_at(order.len() - 2);
        let (first, others) = heads.split_at(heads.len().min(1));
        vec![self.size(first), self.size(others), self.extent(rest[0]), self.extent(rest[1])]
    }

    /// An operand with these labels, as the operation wants it.
    fn gather(&self, found: &Match, operand: Tree, labels: &[u8], order: &[u8]) -> Tree {
        let axes: Vec<usize> = order.iter().map(|label| place(labels, *label)).collect();
        let ordered = permuted(operand, axes);
        reshaped(found, ordered, self.shape(order))
    }

    /// A result of the operation, with these labels.
    fn spread(&self, result: Tree, order: &[u8], labels: &[u8]) -> Tree {
        let shape: Vec<u64> = order.iter().map(|&label| self.extent(label)).collect();
        let whole = if shape == self.shape(order) { result } else { Tree::op(Op::Reshape { shape }, [result]) };
        permuted(whole, labels.iter().map(|label| place(order, *label)).collect())
    }

    fn values(&self, found: &Match, v: Tree, labels: &[u8]) -> Tree {
        self.gather(found, v, labels, &self.values_order())
    }

    /// q and k as the operation wants them.
    fn factors(&self, found: &Match) -> [Tree; 2] {
        let q = self.gather(found, found.tree("q"), &self.q, &self.queries_order());
        let k = self.gather(found, found.tree("k"), &self.k, &self.keys_order());
        [q, k]
    }

    fn attention(&self, found: &Match, v: Tree) -> Tree {
        let [q, k] = self.factors(found);
        Tree::Term(Symbol::Attention(self.spec), vec![q, k, v])
    }

    /// The labels of a contraction whose left operand lies as the scores do.
    fn aligned(&self, c: &Contraction) -> Option<Aligned> {
        let rename = renaming(&c.lhs, &self.scores, &c.rhs, &c.out)?;
        Some(Aligned { other: rename(&c.rhs), result: rename(&c.out) })
    }

    /// The labels of the operands of a contraction whose result lies as the scores do.
    fn aligned_operands(&self, c: &Contraction) -> Option<[Vec<u8>; 2]> {
        let rename = renaming(&c.out, &self.scores, &c.lhs, &c.rhs)?;
        Some([rename(&c.lhs), rename(&c.rhs)])
    }

    /// The gradient operation, given the gradient of the result with its labels, and v as the operation wants it.
    fn backward(&self, found: &Match, d_o: (Tree, &[u8]), v: Tree) -> Tree {
        let attention = self.attention(found, v.clone());
        let [q, k] = self.factors(found);
        let [o, lse] = [0, 1].map(|index| Tree::Term(Symbol::Result(index), vec![attention.clone()]));
        let d_o = self.gather(found, d_o.0, d_o.1, &self.output());
        Tree::Term(Symbol::AttentionBackward(self.spec), vec![q, k, v, o, lse, d_o])
    }
}

/// The mask, and which of the labels that only q has counts queries: the one that the mask depends on, else the last.
fn masked(
    softmax: &SoftmaxSpec,
    key_axis: usize,
    scores: &[u8],
    extents: &[(u8, u64)],
    private: &[u8],
) -> Option<(Mask, u8)> {
    if softmax.mask == Default::default() {
        return Some((Mask::Full, *private.last()?));
    }
    let extent = |label: &u8| extents.iter().find(|(known, _)| known == label).map(|&(_, extent)| extent);
    let shape: Vec<u64> = scores.iter().map(extent).collect::<Option<_>>()?;
    let (mask, axis) = softmax.mask.of_attention(key_axis, &shape)?;
    private.contains(&scores[axis]).then_some((mask, scores[axis]))
}

/// Renames labels so that `from` becomes `to`; the one other label of `a` and `b`, if any, becomes [`CHANNEL`].
fn renaming(from: &[u8], to: &[u8], a: &[u8], b: &[u8]) -> Option<impl Fn(&[u8]) -> Vec<u8>> {
    let mut others: Vec<u8> = a.iter().chain(b).copied().filter(|label| !from.contains(label)).collect();
    others.sort_unstable();
    others.dedup();
    let pairs: Vec<(u8, u8)> = from.iter().copied().zip(to.iter().copied()).collect();
    let rename = move |label: &u8| pairs.iter().find(|(old, _)| old == label).map_or(CHANNEL, |&(_, new)| new);
    (others.len() <= 1).then_some(move |labels: &[u8]| labels.iter().map(&rename).collect())
}

/// Labels of the operand that a gradient of scores is contracted with, labels of the result in the operation's order, and
/// the number of the result.
type Part = (Vec<u8>, Vec<u8>, u32);

/// dq or dk, whose contraction is with `k` or `q`.
fn gradient_of_scores(found: &Match, with: &str, part: fn(&Frame) -> Part) -> Option<Tree> {
    let frame = Frame::new(found)?;
    let (operand, order, index) = part(&frame);
    let as_channel = |labels: &[u8]| -> Vec<u8> {
        labels.iter().map(|&label| if label == frame.channel { CHANNEL } else { label }).collect()
    };
    let contraction = frame.aligned(&found.contraction("d"))?;
    let [d_o, v] = frame.aligned_operands(&found.contraction("dp"))?;
    let fits = contraction.other == as_channel(&operand)
        && same_labels(&contraction.result, &as_channel(&order))
        && frame.is_values(&v)
        && same_labels(&d_o, &frame.output());
    if !fits || found.ty("v").elements() != frame.size(&frame.values_order()) {
        return None;
    }
    debug_assert_eq!(found.ty(with).rank(), operand.len());
    let backward = frame.backward(found, (found.tree("do"), &d_o), frame.values(found, found.tree("v"), &v));
    let result = Tree::Term(Symbol::Result(index), vec![backward]);
    let gradient = frame.spread(result, &as_channel(&order), &contraction.result);
    Some(divided(gradient, frame.spec.scale.get(), &found.tree_type(&found.left).shape))
}

fn gradient_of_values(found: Match) -> Option<Tree> {
    let frame = Frame::new(&found)?;
    let contraction = frame.aligned(&found.contraction("d"))?;
    if !same_labels(&contraction.other, &frame.output()) || !frame.is_values(&contraction.result) {
        return None;
    }
    let [q, k] = frame.factors(&found).map(|tree| found.lookup(&tree));
    let d_o = found.lookup(&frame.gather(&found, found.tree("do"), &contraction.other, &frame.output()));
    let (q, k, d_o) = (q?, k?, d_o?);
    let symbol = Symbol::AttentionBackward(frame.spec);
    let known = found.terms_of(&symbol).find(|c| c[0] == q && c[1] == k && c[5] == d_o)?;
    let backward = frame.backward(&found, (found.tree("do"), &contraction.other), Tree::Class(known[2]));
    let result = Tree::Term(Symbol::Result(2), vec![backward]);
    Some(frame.spread(result, &frame.values_order(), &contraction.result))
}

fn divided(x: Tree, divisor: f64, shape: &[u64]) -> Tree {
    if divisor == 1.0 {
        return x;
    }
    Tree::op(Op::Binary(trainc_kernels::ir::Binary::Mul), [x, full_of(1.0 / divisor, shape)])
}

fn permuted(x: Tree, axes: Vec<usize>) -> Tree {
    if axes.is_sorted() { x } else { Tree::op(Op::Permute { axes }, [x]) }
}

fn reshaped(found: &Match, x: Tree, shape: Vec<u64>) -> Tree {
    if found.tree_type(&x).shape == shape { x } else { Tree::op(Op::Reshape { shape }, [x]) }
}

fn same_labels(a: &[u8], b: &[u8]) -> bool {
    let sorted = |labels: &[u8]| {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        labels
    };
    sorted(a) == sorted(b)
}

fn place(labels: &[u8], label: u8) -> usize {
    labels.iter().position(|l| *l == label).unwrap_or_else(|| panic!("internal: label {label} is not in {labels:?}"))
}
