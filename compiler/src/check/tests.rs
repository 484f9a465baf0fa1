//! Whole programs through the checker.

mod letters;
mod together;

use super::{Sources, check};
use crate::{
    diagnostic::{Diagnostic, render},
    graph::{NodeId, Op},
    program::{InputKind, Program},
    source::{FileId, SourceMap, Span},
};
use trainc_kernels::ir::Unary;
use trainc_runtime::artifact::Duration;

/// Programs that import nothing but the library.
#[derive(Default)]
struct Alone(SourceMap);

impl Sources for Alone {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.0
    }

    fn load(&mut self, path: &str, _from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        Err(super::import_failed(span, path, "there is only one file here"))
    }

    fn record_counter(&self) -> Box<super::CountRecords> {
        Box::new(|_, _| Some(Ok(1_000)))
    }
}

/// The program of a text, or what is wrong with it.
fn checked(text: &str, settings: &[(&str, &str)]) -> Result<Program, String> {
    let mut sources = Alone::default();
    let root = sources.0.add("example.train", text);
    let settings: Vec<(String, String)> = settings.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    check(&mut sources, root, &settings).map_err(|found| render(&sources.0, &found, false))
}

#[test]
fn linear_regression_becomes_a_step() {
    let program =
        checked(include_str!("../../../dsl-examples/linear_regression.train"), &[]).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = program.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["linear.w", "linear.offset.bias"]);
    assert!(program.evaluate.is_some() && program.generate.is_none());
}

#[test]
fn the_graphs_of_a_gpt_do_not_grow_with_its_depth() {
    let sizes = |depth: &str| {
        let program = gpt_with(&[("depth = 4", depth)]).unwrap_or_else(|e| panic!("{e}"));
        let fields = program.inputs.iter().filter(|input| input.kind == InputKind::Field);
        assert_eq!(fields.map(|input| input.below).collect::<Vec<_>>(), [Some(256); 2]);
        let further = [program.evaluate, program.generate].map(|graph| graph.expect("text predicts next tokens").len());
        (program.step.len(), further)
    };
    assert_eq!(sizes("depth = 2"), sizes("depth = 96"));
}

#[test]
fn every_example_becomes_a_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dsl-examples");
    let mut found = 0;
    for folder in [folder.to_string(), format!("{folder}/bench")] {
        let mut paths: Vec<_> =
            std::fs::read_dir(&folder).expect("the examples").map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "train")) {
            let text = std::fs::read_to_string(&path).expect("readable");
            let program = checked(&text, &[]).unwrap_or_else(|found| panic!("{}\n{found}", path.display()));
            // Examples of private training are repeatable on purpose, and one feeds the same batch every step to time it.
            let meant = ["W0750", "W0752"];
            let unexpected: Vec<_> = program.warnings.iter().filter(|warning| !meant.contains(&warning.id)).collect();
            assert!(unexpected.is_empty(), "{}: {unexpected:?}", path.display());
            found += 1;
        }
    }
    assert!(found >= 12, "only {found} examples");
}

/// A GPT with parts replaced.
fn gpt_with(edits: &[(&str, &str)]) -> Result<Program, String> {
    let mut text = include_str!("../../../tests/programs/edited.train").to_string();
    for (from, to) in edits {
        assert!(text.contains(from), "the program has no {from:?}");
        text = text.replacen(from, to, 1);
    }
    checked(&text, &[])
}

#[test]
fn every_definition_of_the_library_goes_into_a_program() {
    let adamw = "adamw(betas = (0.9, 0.95), weight_decay = 0.1)";
    let optimizers = ["sgd", "momentum", "nesterov", "adamw", "lion", "nsgd", "adafactor", "filtered_adam", "dp_adam"];
    for optimizer in optimizers.into_iter().chain(["muon(weight_decay = 0.1)"]) {
        let program = gpt_with(&[(adamw, optimizer), ("{ weight_decay = 0 }", "{ rate = 0.1x }")]);
        let program = program.unwrap_or_else(|found| panic!("{optimizer}: {found}"));
        assert_eq!(program.parameters.len(), 17, "{optimizer}");
    }
    for filter in ["lowpass", "lowpass(order = 2)", "kalman", "kalman(kappa = 0.5, gamma = 1)"] {
        let clause = format!("clip 1.0\n    filter {filter}");
        gpt_with(&[("clip 1.0", &clause)]).unwrap_or_else(|found| panic!("{filter}: {found}"));
    }
    let wsd = "wsd(peak = 2e-3, warmup = 5%, decay = 30%)";
    for schedule in [
        "0.1",
        "constant(0.1)",
        "linear_decay(0.1, warmup = 1%)",
        "cosine(0.1)",
        "wsd_sqrt(0.1, decay = 1M tokens)",
        "inverse_sqrt(0.1, warmup = 20 steps)",
    ] {
        gpt_with(&[(wsd, schedule)]).unwrap_or_else(|found| panic!("{schedule}: {found}"));
    }
    let loss = "cross_entropy(logits, next(tokens))";
    for metric in [
        "cross_entropy(logits, next(tokens), smoothing = 10%, ignore = 0)",
        "accuracy(logits, next(tokens), ignore = 0)",
        "perplexity(logits, next(tokens))",
    ] {
        let clause = format!("{loss}\n    metric m = {metric}");
        gpt_with(&[(loss, &clause)]).unwrap_or_else(|found| panic!("{metric}: {found}"));
    }
    let attention = "attention(layer_norm(x), heads, causal)";
    for part in [
        "attention(rms_norm(x), heads, full, rotate = rope)",
        "attention(x, heads, window = 32, bias = no)",
        "grouped_attention(x, heads, groups = 3, window = 8)",
        "swiglu(x, 64)",
        "dropout(ffn(x, act = gelu_exact), 10%)",
        "ffn(x, act = relu2)",
        "ffn(x, act = silu)",
    ] {
        gpt_with(&[(attention, part)]).unwrap_or_else(|found| panic!("{part}: {found}"));
    }
}

/// Two linear layers with a bias, so two activations forward and, of the inner one, the gradients of both.
#[test]
fn in_bf16_products_with_parameters_are_rounded_with_what_is_added_to_them() {
    let text = "use std\nmodel Net(width) {\n    input x: [batch, 8]\n    input y: [batch, 3]\n    \
                output z = linear(relu(linear(x, width)), 3)\n}\n\
                train {\n    model Net(width = 4)\n    loss mse(z, y)\n    optimizer sgd\n    schedule constant(0.1)\n    \
                steps 5  batch 2  precision f32\n}\n";
    let rounded = |precision: &str| {
        let program = checked(text, &[("precision", precision)]).unwrap_or_else(|e| panic!("{e}"));
        [program.step, program.evaluate.expect("without data, too")].map(|graph| {
            let live = graph.live();
            let round = |id: &NodeId| live[id.index()] && graph.node(*id).op == Op::Unary(Unary::RoundBf16);
            graph.ids().filter(round).map(|id| graph.node(graph.operands(id)[0]).op.name()).collect::<Vec<_>>()
        })
    };
    assert_eq!(rounded("f32"), [[""; 0]; 2]);
    let [step, evaluate] = rounded("bf16");
    assert_eq!((step.len(), evaluate), (4, vec!["Binary"; 2]));
}

#[test]
fn groups_settings_and_freezing_reach_the_parameters() {
    let program =
        gpt_with(&[("clip 1.0", "clip 1.0\n    freeze embeddings, \"head.*\"")]).unwrap_or_else(|e| panic!("{e}"));
    let frozen: Vec<&str> = program.parameters.iter().filter(|p| !p.trainable).map(|p| p.name.as_str()).collect();
    assert_eq!(frozen, ["embedding.table", "positions.table", "head.w"]);
    let text = include_str!("../../../tests/programs/edited.train");
    let program = checked(text, &[("width", "96"), ("steps", "7")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((program.train.steps, program.parameters[0].shape[1]), (Duration::Steps(7), 96));
    let found = checked(text, &[("widht", "96")]).expect_err("a misspelt setting is refused");
    assert!(found.contains("did you mean `width`?"), "{found}");
}
