//! The readable form of a graph: one line per node, those of a repeat indented.

use super::{Contraction, Graph, NodeId, Op, ScopeId};
use std::fmt;
use trainc_kernels::ir::Generator;

impl fmt::Display for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, scope) in self.scopes() {
            let times = if id == ScopeId::ROOT { String::new() } else { format!(" x {}", scope.count) };
            writeln!(formatter, "scope {} {}{times}", id.0, scope.name)?;
            for carry in &scope.carries {
                let next = carry.next.map_or("nothing".into(), name);
                let way = if carry.reversed { ", reversed" } else { "" };
                writeln!(formatter, "  carry {}: {}, then {next}{way}", name(carry.node), name(carry.init))?;
            }
        }
        for node in self.ids() {
            writeln!(formatter, "{}", self.line(node))?;
        }
        for (output, node) in self.outputs() {
            writeln!(formatter, "output {output:?} = {}", name(*node))?;
        }
        Ok(())
    }
}

impl Graph {
    /// `%3 = add(%1, %2): f32[4]`, after the number of its scope if it is in one.
    pub fn line(&self, id: NodeId) -> String {
        let node = self.node(id);
        let home = if node.scope == ScopeId::ROOT { String::new() } else { format!("  {}| ", node.scope.0) };
        let operands: Vec<String> = self.operands(id).into_iter().map(name).collect();
        format!("{home}{} = {}({}): {}", name(id), label(&node.op), operands.join(", "), node.ty)
    }
}

fn name(node: NodeId) -> String {
    format!("%{}", node.index())
}

/// The operation without what its result's type says.
fn label(op: &Op) -> String {
    match op {
        Op::Constant { value, .. } => format!("constant {:?}", value.get()),
        Op::Iota { axis, .. } => format!("iota {axis}"),
        Op::Input { index, .. } => format!("input {index}"),
        Op::Parameter { index, .. } => format!("parameter {index}"),
        Op::State { index, .. } => format!("state {index}"),
        Op::Control(field) => format!("control {field:?}").to_lowercase(),
        Op::Random { stream, generator: Generator::Philox, .. } => format!("random {stream}"),
        Op::Random { stream, generator: Generator::ChaCha20 { word }, .. } => format!("secure random {stream}.{word}"),
        Op::Unary(function) => format!("{function:?}").to_lowercase(),
        Op::Binary(function) => format!("{function:?}").to_lowercase(),
        Op::Broadcast { axes, .. } => format!("broadcast {axes:?}"),
        Op::Permute { axes } => format!("permute {axes:?}"),
        Op::Slice { axis, start, length } => format!("slice {axis} from {start} take {length}"),
        Op::Pad { axis, before, after } => format!("pad {axis} by {before} and {after}"),
        Op::Concat { axis } => format!("concat {axis}"),
        Op::Window { axis, size, stride } => format!("window {axis} of {size} every {stride}"),
        Op::Unwindow { axis, stride, .. } => format!("unwindow {axis} every {stride}"),
        Op::Reduce { kind, axes } => format!("{kind:?} {axes:?}").to_lowercase(),
        Op::Contract(Contraction { lhs, rhs, out, precision }) => {
            format!("contract {lhs:?} {rhs:?} -> {out:?} in {precision:?}").to_lowercase()
        }
        Op::Attention(spec) | Op::AttentionBackward(spec) => {
            let (kind, scale) = (op.name().to_lowercase(), spec.scale.get());
            format!("{kind} {:?} scale {scale} in {:?}", spec.mask, spec.precision).to_lowercase()
        }
        Op::Project { index } => format!("result {index} of "),
        _ => op.name().to_lowercase(),
    }
}
