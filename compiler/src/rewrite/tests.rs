//! Whole graphs: rewriting keeps their values, finds attention in them, does the same twice, does not depend on depth,
//! and its proofs hold.

use super::{
    samples::{self, Style},
    *,
};
use crate::graph::{Bindings, Graph, NodeId, Op, interpret};

/// All outputs of both graphs agree to a relative error in norm; of what should be 0, to one below `tolerance / 1000`.
pub(super) fn assert_equal(a: &Graph, b: &Graph, bindings: &Bindings, tolerance: f64) {
    let mut left = interpret(a, bindings).expect("the source is a graph");
    let mut right = interpret(b, bindings).expect("the result is a graph");
    for (output, _) in a.outputs() {
        let x = left.output(output).expect("an output").clone();
        let y = right.output(output).expect("the same output");
        assert_eq!(x.ty, y.ty, "{output:?}");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = norm(&mut x.data.iter().zip(&y.data).map(|(x, y)| x - y));
        let size = norm(&mut x.data.iter().copied()).max(1e-3);
        assert!(difference <= tolerance * size, "{output:?}: {difference:e} of {size:e}");
    }
}

fn count(graph: &Graph, kind: &str) -> usize {
    graph.ids().filter(|id| language::op_kind(&graph.node(*id).op) == kind).count()
}

#[test]
fn rewriting_keeps_the_values_of_whole_training_steps() {
    for (name, graph) in samples::all() {
        let bindings = samples::bindings(&graph, 7);
        let canonical = canonical::canonicalise(&graph, Precision::F32);
        assert_equal(&graph, &canonical, &bindings, 1e-12);
        let rewritten = rewrite(&graph, &Options::default());
        println!("{name}: {:?}", rewritten.report);
        assert_equal(&graph, &rewritten.graph, &bindings, 1e-10);
    }
}

#[test]
fn rewriting_keeps_the_values_of_programs_and_finds_their_attention() {
    for (name, program) in samples::programs() {
        let bindings = samples::bindings(&program.step, 11);
        let rewritten = rewrite(&program.step, &Options::default());
        assert_equal(&program.step, &rewritten.graph, &bindings, 1e-9);
        let found = ["attention", "attention_backward"].map(|kind| count(&rewritten.graph, kind));
        assert_eq!(found, [1, 1], "{name}: {:#?}", rewritten.report);
    }
}

/// Machines on which products, or memory, cost next to nothing or more than all else.
fn extreme_machines() -> [Machine; 4] {
    let cpu = Machine::CPU;
    [
        cpu,
        Machine { contraction: 1, ..cpu },
        Machine { contraction: 100 * cpu.contraction, ..cpu },
        Machine { traffic: 1000 * cpu.traffic, launch: 1, ..cpu },
    ]
}

#[test]
fn private_steps_keep_their_values_however_norms_are_found() {
    for (name, program) in samples::private_programs() {
        let bindings = samples::bindings(&program.step, 13);
        for machine in extreme_machines() {
            let rewritten = rewrite(&program.step, &Options { machine, ..Options::default() });
            println!("{name}, {machine:?}");
            assert_equal(&program.step, &rewritten.graph, &bindings, 1e-9);
        }
    }
}

/// The squared norm of each sample's gradient of a matrix `[p, d]` after `t` positions, and their sum weighted by sample.
fn norm_and_weighted_sum([t, d, p]: [u64; 3]) -> Graph {
    const SAMPLES: u64 = 4;
    let mut step = samples::Step::new();
    let x = step.input(0, crate::graph::TensorType::f32([SAMPLES, t, d]));
    let y = step.input(1, crate::graph::TensorType::f32([SAMPLES, t, p]));
    let f = step.input(2, crate::graph::TensorType::f32([SAMPLES]));
    let g = &mut step.graph;
    let gradient = g.contract(x, y, [&[0, 1, 2], &[0, 1, 3], &[0, 3, 2]], Precision::F32);
    let square = g.times(gradient, gradient);
    let norm = g.sum(square, &[1, 2]);
    let weights = g.broadcast(f, &[0], &[SAMPLES, p, d]);
    let weighted = g.times(weights, gradient);
    let sum = g.sum(weighted, &[0]);
    g.set_output(crate::graph::Output::Report("norm".into()), norm);
    g.set_output(crate::graph::Output::Report("sum".into()), sum);
    step.graph
}

#[test]
fn per_sample_gradients_are_formed_where_sequences_are_long_and_matrices_small() {
    let is_ghost = |shape: [u64; 3]| {
        let rewritten = rewrite(&norm_and_weighted_sum(shape), &Options::default());
        count(&rewritten.graph, "contract") == 3
    };
    let widths = [16, 64, 256, 1024, 4096];
    let mut before = usize::MAX;
    for t in [1, 8, 64, 512, 4096] {
        let ghosts: Vec<bool> = widths.iter().map(|&width| is_ghost([t, width, width])).collect();
        let number = ghosts.iter().filter(|ghost| **ghost).count();
        assert!(ghosts.is_sorted(), "wider matrices rather take pairs of positions: {t}: {ghosts:?}");
        assert!(number <= before, "longer sequences rather take the gradients: {t}: {ghosts:?}");
        before = number;
    }
    assert!(is_ghost([64, 768, 50257]), "the head of a large vocabulary");
    assert!(!is_ghost([4096, 64, 64]), "a small matrix after many positions");
}

#[test]
fn each_way_to_norms_and_weighted_sums_gives_the_same_values() {
    for shape in [[3, 5, 4], [6, 2, 3]] {
        let graph = norm_and_weighted_sum(shape);
        let canonical = canonical::canonicalise(&graph, Precision::F32);
        let live = canonical.live();
        let bindings = samples::bindings(&graph, 17);
        for class in 0..2 {
            let forced = forced(&canonical, &live, class);
            assert!(forced.len() > 1, "output {class} of {shape:?} has one form only");
            for rewritten in forced {
                assert_equal(&graph, &rewritten, &bindings, 1e-12);
            }
        }
    }
}

#[test]
fn multiples_and_views_do_not_force_gradients_of_samples() {
    let graph = samples::viewed_gradients();
    // Memory is dear here, so what is small is chosen: pairs of 3 positions rather than matrices of 16 x 24.
    let machine = Machine { traffic: 1000 * Machine::CPU.traffic, launch: 1, ..Machine::CPU };
    let rewritten = rewrite(&graph, &Options { machine, ..Options::default() }).graph;
    assert_equal(&graph, &rewritten, &samples::bindings(&graph, 5), 1e-12);
    let gradients = rewritten.ids().filter(|id| rewritten.shape(*id).starts_with(&[2, 16, 24]));
    assert_eq!(gradients.count(), 0, "{rewritten}");
}

/// The root's graph with each of the forms of one of its results.
fn forced(canonical: &Graph, live: &[bool], result: usize) -> Vec<Graph> {
    let mut forced = Vec::new();
    loop {
        let mut region = region::regions(canonical, live).remove(0);
        saturate::saturate(&mut region.egraph, &Limits::default());
        let (source, roots) = (region.source(), region.roots());
        let class = roots[result];
        let mut ways = extract::alternatives(&region.egraph, &Machine::CPU, &source, &roots, class);
        if forced.len() == ways.len() {
            return forced;
        }
        let extraction = ways.swap_remove(forced.len());
        let chosen = [rebuild::Chosen { region, extraction }];
        forced.push(rebuild::rebuild(canonical, live, &chosen, Precision::F32).graph);
    }
}

#[test]
fn an_explanation_lists_the_ways_to_a_norm_with_their_cost() {
    let graph = norm_and_weighted_sum([8, 64, 64]);
    let explained = explain(&graph, &Options::default(), "norm");
    let ways = &explained[0].alternatives;
    let cost = rewrite(&graph, &Options::default()).report.regions[0].cost[1];
    assert_eq!(ways.iter().filter(|way| way.chosen).count(), 1, "{ways:#?}");
    assert!(ways[0].chosen && ways[0].cost == u128::from(cost), "the cheapest is chosen: {ways:#?}");
    // 4 samples, 8 positions, 64 x 64 matrices: two products of pairs of positions, their product and its sum, the
    // weighted operand and one product of 64 x 64 over all 32 positions.
    let pairs = 2 * (2 * 4 * 8 * 8 * 64) + 2 * (4 * 8 * 8);
    let weighted = 4 * 8 * 64 + 2 * 4 * 8 * 64 * 64;
    assert!(ways.iter().any(|way| way.flops == pairs + weighted), "{ways:#?}");
    assert!(ways.iter().any(|way| way.form.contains("contract[4, 8, 8]")), "{ways:#?}");
    assert!(ways.iter().any(|way| way.form.contains("contract[4, 64, 64]")), "{ways:#?}");
}

#[test]
fn attention_and_its_gradient_are_found_in_what_differentiation_leaves() {
    for style in [Style::CAUSAL, Style::FULL, Style::WINDOW, Style::GROUPED] {
        let rewritten = rewrite(&samples::transformer(style, 2), &Options::default());
        let graph = &rewritten.graph;
        assert_eq!(count(graph, "attention"), 1, "{style:?}: {:#?}", rewritten.report);
        assert_eq!(count(graph, "attention_backward"), 1, "{style:?}: {:#?}", rewritten.report);
        let scores = |id: &NodeId| {
            let shape = graph.shape(*id);
            shape.len() >= 4 && shape[shape.len() - 2..] == [samples::TOKENS, samples::TOKENS]
        };
        let left: Vec<&Op> = graph.ids().filter(scores).map(|id| &graph.node(id).op).collect();
        assert!(left.is_empty(), "{style:?}: {left:?}");
    }
}

#[test]
fn two_runs_give_the_same_graph_and_report() {
    let graph = samples::transformer(Style::CAUSAL, 2);
    let [a, b] = [0, 1].map(|_| rewrite(&graph, &Options::default()));
    assert_eq!(a.report, b.report);
    assert_eq!(format!("{:?}", a.graph), format!("{:?}", b.graph));
}

#[test]
fn the_work_does_not_depend_on_the_number_of_instances() {
    let report = |depth| {
        let mut report = rewrite(&samples::transformer(Style::CAUSAL, depth), &Options::default()).report;
        report.regions.iter_mut().for_each(|region| {
            (region.instances, region.cost) = (0, [0, 0]);
        });
        report
    };
    assert_eq!(report(2), report(12));
    assert_eq!(report(2), report(96));
}

#[test]
fn a_transformer_saturates_within_the_limits() {
    let report = rewrite(&samples::transformer(Style::CAUSAL, 2), &Options::default()).report;
    for region in &report.regions {
        assert_eq!(region.limit, None, "{region:#?}");
        assert!(region.iterations < 12, "{region:#?}");
        assert!(region.cost[1] <= region.cost[0], "{region:#?}");
    }
}

#[test]
fn an_explanation_names_the_rules_that_found_attention() {
    let graph = samples::transformer(Style::CAUSAL, 2);
    let explained = explain(&graph, &Options::default(), "attention");
    let rules: Vec<&str> = explained[0].steps.iter().map(|step| step.rule.as_str()).collect();
    for rule in ["softmax", "softmax-mask", "softmax-scale", "attention"] {
        assert!(rules.contains(&rule), "{rule} is not in {rules:?}");
    }
    let backward = explain(&graph, &Options::default(), "attention_backward");
    assert!(backward[0].steps.iter().any(|step| step.rule.starts_with("attention-gradient")), "{backward:#?}");
}

#[test]
fn norms_activations_and_losses_are_recognised_from_primitives() {
    let recognised = |graph: &Graph| {
        let report = rewrite(graph, &Options::default()).report;
        let names = report.regions.into_iter().flat_map(|region| region.recognised.into_keys());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let gpt = recognised(&samples::transformer(Style::CAUSAL, 2));
    for name in ["layer norm", "gelu", "log softmax", "softmax", "attention", "attention gradient"] {
        assert!(gpt.contains(name), "{name} is not in {gpt:?}");
    }
    let llama = recognised(&samples::transformer(Style::GROUPED, 2));
    for name in ["root-mean-square norm", "silu"] {
        assert!(llama.contains(name), "{name} is not in {llama:?}");
    }
}

/// The table of rules as `spec/rewrites.md` has it.
fn table() -> String {
    let mut text = String::new();
    for theme in rules::THEMES {
        text +=
            &format!("### {}\n\n{}\n\n| rule | law | condition |\n| --- | --- | --- |\n", theme.name, theme.purpose);
        for rule in theme.rules {
            text += &format!("| `{}` | `{}` | {} |\n", rule.name, rule.law, rule.condition);
        }
        text += "\n";
    }
    text += "### recognised\n\n| composite | pattern |\n| --- | --- |\n";
    for composite in recognise::COMPOSITES {
        text += &format!("| {} | `{}` |\n", composite.name, composite.pattern);
    }
    text
}

#[test]
fn the_page_of_rules_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/rewrites.md");
    let page = std::fs::read_to_string(path).expect("spec/rewrites.md");
    let marker = "<!-- generated: BLESS=1 cargo nextest run -p trainc the_page_of_rules_is_current -->\n";
    let (text, _) = page.split_once(marker).expect("the marker before the table");
    let current = format!("{text}{marker}\n{}", table());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, current).expect("spec/rewrites.md is written");
    } else {
        assert_eq!(page, current, "spec/rewrites.md is stale: run with BLESS=1");
    }
}

#[test]
fn attention_wins_at_real_sizes_with_and_without_a_mask() {
    use crate::graph::{AttentionSpec, Contraction, Mask, TensorType};
    use language::{Symbol, Term};
    let machine = Machine::CPU;
    for (tokens, channels) in [(64, 32), (256, 64), (1024, 64), (1024, 128), (4096, 128)] {
        let rows = TensorType::f32([8, 12, tokens, channels]);
        let scores = TensorType::f32([8, 12, tokens, tokens]);
        let lse = TensorType::f32([8, 12, tokens]);
        let one = |symbol: Symbol, results: &[&TensorType], operands: &[&TensorType]| {
            let results: Vec<TensorType> = results.iter().map(|&ty| ty.clone()).collect();
            let operands: Vec<[TensorType; 1]> = operands.iter().map(|&ty| [ty.clone()]).collect();
            let operands: Vec<&[TensorType]> = operands.iter().map(|ty| &ty[..]).collect();
            cost::cost(&machine, &Term::new(symbol, []), &results, &operands)
        };
        let contract = |lhs: [u8; 4], rhs: [u8; 4], out: [u8; 4]| {
            let [lhs, rhs, out] = [lhs, rhs, out].map(Vec::from);
            Symbol::Op(Op::Contract(Contraction { lhs, rhs, out, precision: Precision::F32 }))
        };
        let to_scores = one(contract([0, 1, 2, 4], [0, 1, 3, 4], [0, 1, 2, 3]), &[&scores], &[&rows, &rows]);
        let from_scores = one(contract([0, 1, 2, 3], [0, 1, 3, 4], [0, 1, 2, 4]), &[&rows], &[&scores, &rows]);
        let primitives = 2 * to_scores + 4 * from_scores;
        let spec = AttentionSpec { scale: 1.0.into(), mask: Mask::Full, precision: Precision::F32 };
        let forward = one(Symbol::Attention(spec), &[&rows, &lse], &[&rows; 3]);
        let backward = one(Symbol::AttentionBackward(spec), &[&rows; 3], &[&rows, &rows, &rows, &rows, &lse, &rows]);
        assert!(forward + backward < primitives, "{tokens} x {channels}: {forward} + {backward} and {primitives}");
    }
}

#[test]
fn a_step_of_many_layers_outside_repeats_is_rewritten_in_bounded_work() {
    let graph = samples::deep_mlp(24);
    let start = std::time::Instant::now();
    let rewritten = rewrite(&graph, &Options::default());
    println!("{} nodes in {:?}: {:?}", graph.len(), start.elapsed(), rewritten.report);
    assert!(rewritten.report.e_nodes() < 20 * graph.len(), "{:#?}", rewritten.report);
    assert_equal(&graph, &rewritten.graph, &samples::bindings(&graph, 5), 1e-9);
}

#[test]
fn rewriting_keeps_the_values_and_gradients_of_random_graphs() {
    for seed in 0..120 {
        let mut sample = crate::graph::arbitrary::sample(seed, 10);
        let gradients = crate::graph::differentiate(&mut sample.graph, sample.loss, &sample.parameters);
        sample.graph.set_output(crate::graph::Output::Report("loss".into()), sample.loss);
        for (index, gradient) in (0..).zip(gradients.expect("arbitrary graphs are differentiable")) {
            if let Some(gradient) = gradient {
                sample.graph.set_output(crate::graph::Output::Parameter(index), gradient);
            }
        }
        let rewritten = rewrite(&sample.graph, &Options::default()).graph;
        rewritten.verify().unwrap_or_else(|error| panic!("seed {seed}: {error}\n{rewritten}"));

        assert_equal(&sample.graph, &rewritten, &sample.bindings, 1e-9);
    }
}
