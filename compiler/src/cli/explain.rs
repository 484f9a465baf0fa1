//! `trainc explain`: the chain of rules that turned the source into what runs, and what else it could have been.

use super::{arguments::Explain, failure::Failure, output, sources};
use std::collections::BTreeMap;
use trainc::{
    compile::Compilation,
    graph::Graph,
    rewrite::{self, Alternative, Explanation, Options},
    source::SourceMap,
};

/// Explains the nodes that a pattern names; without one, lists what rewriting did.
pub fn explain(arguments: &Explain) -> Result<(), Failure> {
    let (compilation, map, _) = sources::compile(&arguments.program)?;
    let graph = &compilation.program.step;
    let Some(pattern) = &arguments.node else {
        output::text(format_args!("{}{}", overview(graph, &compilation.options), storing(&compilation)));
        return Ok(());
    };
    let explained = rewrite::explain(graph, &compilation.options, pattern);
    if explained.is_empty() {
        return Err(Failure::misuse(format!(
            "no node `{pattern}`: name a kind (attention, contract, reduce, ...), an output (loss), or a number; \
             without a name, `trainc explain` lists what happened"
        )));
    }
    for explanation in &explained {
        output::text(format_args!("{}{}", story(explanation, &map), ways(&explanation.alternatives)));
    }
    output::text(storing(&compilation));
    Ok(())
}

/// What the memory budget has to do with the choices.
fn storing(compilation: &Compilation) -> String {
    match (compilation.program.train.memory, compilation.price_of_storing()) {
        (None, _) | (_, 1) => String::new(),
        (Some((budget, _)), price) => format!(
            "\nto keep to `memory` ({}), stored results are priced {price} times as high as without a budget\n",
            output::bytes(budget)
        ),
    }
}

fn overview(graph: &Graph, options: &Options) -> String {
    let rewritten = rewrite::rewrite(graph, options);
    let report = &rewritten.report;
    let [source, canonical, result] = report.nodes;
    let mut text = format!("{source} nodes as written, {canonical} in canonical form, {result} after rewriting\n");
    for region in &report.regions {
        let [before, after] = region.cost.map(|cost| cost as f64 / 1e6);
        text += &format!(
            "\n{} (x{}): {} e-nodes in {} classes after {} iterations{}; modelled cost {before:.1} us -> {after:.1} us\n",
            region.name,
            region.instances,
            region.e_nodes,
            region.e_classes,
            region.iterations,
            region.limit.map_or(String::new(), |limit| format!(" (stopped by the limit on {limit})")),
        );
        for (rule, count) in &region.applications {
            text += &format!("  {count:4} x {rule}\n");
        }
    }
    let kinds = kinds(&rewritten.graph);
    text + &format!("\nexplain one of: {}\n", kinds.into_keys().collect::<Vec<_>>().join(", "))
}

/// How many nodes there are of each kind.
fn kinds(graph: &Graph) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for id in graph.ids() {
        *kinds.entry(rewrite::language::op_kind(&graph.node(id).op).to_string()).or_default() += 1;
    }
    kinds
}

fn story(Explanation { node, steps, .. }: &Explanation, map: &SourceMap) -> String {
    let mut text = format!("node {node}");
    if let Some(span) = steps.iter().find_map(|step| step.span) {
        let (line, column) = map.line_column(span.file, span.start);
        text += &format!(", from {}:{line}:{column}", map.file(span.file).name);
    }
    text += if steps.is_empty() { ": as written\n" } else { "\n" };
    for step in steps {
        let direction = if step.reversed { " (right to left)" } else { "" };
        text += &format!("  {}{direction}: {}\n    = {}\n", step.rule, step.law, step.after);
    }
    text
}

/// The ways to compute a node, what their scope costs with each, and which was chosen.
fn ways(alternatives: &[Alternative]) -> String {
    if alternatives.is_empty() {
        return String::new();
    }
    let mut text = format!("  {} ways, with the modelled cost of the whole scope:\n", alternatives.len());
    for Alternative { form, chosen, cost, flops, bytes } in alternatives {
        let mark = if *chosen { "->" } else { "  " };
        let [cost, flops, bytes] = [*cost, *flops, *bytes].map(|number| number as f64 / 1e6);
        text += &format!("  {mark} {cost:.1} us, {flops:.3} MFLOP, {bytes:.3} MB: {form}\n");
    }
    text
}
