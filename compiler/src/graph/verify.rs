//! What holds of every graph between passes.

use super::{Graph, Node, NodeId, Op, Output, ScopeId, TensorType};
use std::collections::BTreeMap;
use trainc_kernels::ir::Generator;

impl Graph {
    /// Checks that types are as inferred, that operands come before users, that scopes are left and entered only as the
    /// module's documentation says, that carries are closed, that no value depends on itself, and that outputs are
    /// root values of the right type. Passes that build graphs are followed by this in tests and debug builds.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub fn verify(&self) -> Result<(), String> {
        self.verify_scopes()?;
        for id in self.ids() {
            self.verify_node(id).map_err(|error| format!("%{} {}: {error}", id.index(), self.node(id).op.name()))?;
        }
        self.verify_leaves()?;
        self.components().iter().try_for_each(|component| self.verify_loop(component))?;
        self.outputs().iter().try_for_each(|(output, node)| self.verify_output(output, *node))
    }

    fn verify_scopes(&self) -> Result<(), String> {
        for (id, scope) in self.scopes() {
            expect(scope.count > 0, || format!("scope {} has no instances", scope.name))?;
            expect(id != ScopeId::ROOT || (scope.count == 1 && scope.carries.is_empty()), || {
                "the root repeats".into()
            })?;
            for (index, carry) in scope.carries.iter().enumerate() {
                let name = format!("carry {index} of {}", scope.name);
                let expected = Op::Carry { scope: id, index: index as u32 };
                expect(self.contains(carry.node) && self.node(carry.node).op == expected, || {
                    format!("{name} has no node")
                })?;
                let Some(next) = carry.next.filter(|&next| self.contains(next)) else {
                    return Err(format!("{name} is not closed"));
                };
                let Node { ty, scope, .. } = self.node(next);
                expect(*ty == self.node(carry.node).ty, || format!("{name} hands on {ty}"))?;
                expect(*scope == id || *scope == ScopeId::ROOT, || {
                    format!("{name} hands on a value of another scope")
                })?;
            }
        }
        Ok(())
    }

    fn contains(&self, node: NodeId) -> bool {
        node.index() < self.len()
    }

    fn verify_node(&self, id: NodeId) -> Result<(), String> {
        let node = self.node(id);
        let operands = self.operands(id);
        expect(operands.iter().all(|&operand| operand < id), || "an operand comes later".into())?;
        expect((node.scope.0 as usize) < self.scopes().count(), || "in an unknown scope".into())?;
        let ty = self.type_of(&node.op, &operands).map_err(|error| error.0)?;
        expect(ty == node.ty, || format!("has type {}, and should have {ty}", node.ty))?;
        expect(self.scope_of(&node.op, &operands) == node.scope, || "is in the wrong scope".into())?;
        match node.op {
            Op::Layer { scope } => self.verify_layer(&operands, self.scope(scope).count),
            Op::Carry { .. } => self.verify_carry(id, &operands),
            Op::Last => expect(self.is_carry(operands[0]), || "the operand is not a carry".into()),
            Op::Stack { count } => self.verify_exit(operands[0], Some(count)),
            Op::SumInstances => self.verify_exit(operands[0], None),
            Op::Constant { value, dtype } => verify_constant(value.get(), dtype),
            _ => {
                let at_home = |&operand: &NodeId| [node.scope, ScopeId::ROOT].contains(&self.node(operand).scope);
                expect(operands.iter().all(at_home), || "operands of different scopes".into())
            }
        }
    }

    fn is_carry(&self, node: NodeId) -> bool {
        matches!(self.node(node).op, Op::Carry { .. })
    }

    fn verify_layer(&self, operands: &[NodeId], count: u64) -> Result<(), String> {
        let Node { ty, scope, .. } = self.node(operands[0]);
        expect(*scope == ScopeId::ROOT, || "a layer of a value inside a scope".into())?;
        expect(ty.shape[0] == count, || format!("{count} layers of {ty}"))
    }

    fn verify_carry(&self, id: NodeId, operands: &[NodeId]) -> Result<(), String> {
        expect(self.node(operands[0]).scope == ScopeId::ROOT, || "the initial value is inside a scope".into())?;
        let Op::Carry { scope, index } = self.node(id).op else { unreachable!("matched above") };
        let entry = self.scope(scope).carries.get(index as usize);
        let known = entry.is_some_and(|carry| carry.node == id && carry.init == operands[0]);
        expect(known, || "the scope does not know it".into())
    }

    fn verify_exit(&self, operand: NodeId, count: Option<u64>) -> Result<(), String> {
        let scope = self.node(operand).scope;
        expect(scope != ScopeId::ROOT, || "the operand is not inside a scope".into())?;
        let instances = self.scope(scope).count;
        expect(count.is_none_or(|count| count == instances), || format!("of a scope of {instances} instances"))
    }

    /// One input, parameter or state has one type; one stream is one draw.
    fn verify_leaves(&self) -> Result<(), String> {
        let mut known: BTreeMap<(&str, u32, Option<Generator>), &Op> = BTreeMap::new();
        for id in self.ids() {
            let op = &self.node(id).op;
            let (index, word) = match op {
                Op::Input { index, .. } | Op::Parameter { index, .. } | Op::State { index, .. } => (index, None),
                // Words of a block are draws of their own, but another generator's are not another stream.
                Op::Random { stream, generator: word @ Generator::ChaCha20 { .. }, .. } => (stream, Some(*word)),
                Op::Random { stream, generator: Generator::Philox, .. } => (stream, None),
                _ => continue,
            };
            let first = *known.entry((op.name(), *index, word)).or_insert(op);
            expect(first == op, || format!("{} {index} is both {first:?} and {op:?}", op.name()))?;
        }
        Ok(())
    }

    /// Values that wait for each other are of one scope, and all carries among them run one way.
    fn verify_loop(&self, nodes: &[NodeId]) -> Result<(), String> {
        let first = nodes[0];
        if nodes.len() == 1 {
            return Ok(());
        }
        let scope = self.node(first).scope;
        let one_scope = scope != ScopeId::ROOT && nodes.iter().all(|&node| self.node(node).scope == scope);
        expect(one_scope, || format!("%{} depends on itself", first.index()))?;
        let mut carries = nodes.iter().filter(|&&node| self.is_carry(node)).map(|&node| self.carry(node).reversed);
        let direction = carries.next();
        expect(carries.all(|other| Some(other) == direction), || {
            format!("%{} is in a loop that runs both ways", first.index())
        })
    }

    fn verify_output(&self, output: &Output, node: NodeId) -> Result<(), String> {
        expect(self.contains(node), || format!("{output:?} has no node"))?;
        let Node { ty, scope, .. } = self.node(node);
        expect(*scope == ScopeId::ROOT, || format!("{output:?} is inside a scope"))?;
        let declared = self.ids().find_map(|id| match (&self.node(id).op, output) {
            (Op::Parameter { index, shape }, Output::Parameter(of)) if index == of => Some(shape),
            (Op::State { index, shape }, Output::State(of)) if index == of => Some(shape),
            _ => None,
        });
        let fits = declared.is_none_or(|shape| *ty == TensorType::f32(shape.as_slice()));
        expect(fits, || format!("{output:?} becomes {ty}"))
    }
}

fn verify_constant(value: f64, dtype: trainc_runtime::artifact::DType) -> Result<(), String> {
    let whole = value.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
    expect(dtype != trainc_runtime::artifact::DType::I32 || whole, || format!("{value} is not an i32"))
}

fn expect(condition: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(message()) }
}
