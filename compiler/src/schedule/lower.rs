//! From nodes to scalar expressions: the value of a node at given coordinates, as an expression over a kernel's loops.
//!
//! Index maps and virtual nodes are followed down to values that lie in buffers. A value that the same kernel computes may
//! be used only at the coordinates at which the kernel computes it; anything else is a [`Misfit`], which says that the
//! values cannot share a kernel.

use super::{
    coords,
    dag::{Dag, Id, Tensor},
};
use crate::graph::{Contraction, ControlField, Op};
use std::collections::BTreeMap;
use trainc_kernels::ir::{Access, Binary, Buffer, DType, Draw, Expr, ExprId, Exprs, Index, Store};
use trainc_runtime::artifact::Control;

/// Elements of the control block as i32.
const CONTROL_ELEMENTS: u64 = (size_of::<Control>() / size_of::<u32>()) as u64;

/// Why values cannot be computed by one kernel: one of them is needed at other coordinates than it is computed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// What a launch argument stands for, before instances and offsets are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The host's numbers.
    Control,
    /// A persistent tensor.
    Tensor(Tensor),
    /// The instance's slice, of so many bytes, of a persistent tensor.
    Slice(Tensor, u64),
    /// A model input.
    Input(u32),
    /// The value of a node.
    Node(Id),
    /// What a sum of instances has of those since it was last added to.
    Partial(Id),
    /// Memory that a kernel of this node needs while it runs, or results that nobody reads; numbered.
    Temporary(Id, u32),
}

/// Which nodes are computed by kernels, and how their values lie in memory.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    pub dag: &'a Dag,
    /// By node: whether a kernel computes it (all others are index maps or recomputed by their users).
    pub computed: Vec<bool>,
    /// By node: order of the axes in memory, where it is not the usual one.
    pub layouts: BTreeMap<Id, Vec<usize>>,
    /// By node: what its elements are in memory.
    pub stored: Vec<DType>,
}

impl Values<'_> {
    /// Whether a value is read from a buffer.
    pub fn in_memory(&self, id: Id) -> bool {
        self.computed[id] || self.dag.nodes[id].is_buffer()
    }

    /// The buffer that a value is read from or written to.
    pub fn key(&self, id: Id) -> Key {
        use super::dag::Home;
        match (self.dag.homes.get(&id), &self.dag.nodes[id].op) {
            (Some(Home::Tensor(tensor)), _) => Key::Tensor(*tensor),
            (Some(&Home::Under(user)), _) => self.key(user),
            (Some(&Home::Slice(stack)), _) => self.slice(id, stack),
            (_, Op::Layer { .. }) => self.slice(id, self.dag.storage(self.dag.nodes[id].operands[0])),
            (_, Op::Input { index, .. }) => Key::Input(*index),
            _ => self.dag.tensor(id).map_or(Key::Node(id), Key::Tensor),
        }
    }

    /// The buffer of a value that is a slice of `whole`: old and new slices of a tensor are one buffer.
    fn slice(&self, id: Id, whole: Id) -> Key {
        match self.key(whole) {
            Key::Tensor(tensor) => Key::Slice(tensor, self.dag.nodes[id].bytes()),
            _ => Key::Node(id),
        }
    }

    /// Bytes of a value in memory.
    pub fn bytes(&self, id: Id) -> u64 {
        self.dag.nodes[id].elements() * self.stored[id].bytes()
    }

    /// The position in memory of an element.
    pub fn position(&self, id: Id, coords: &[Index]) -> Index {
        let shape = &self.dag.nodes[id].shape;
        match self.layouts.get(&id) {
            None => coords::flatten(coords, shape),
            Some(order) => {
                let extents: Vec<u64> = order.iter().map(|&axis| shape[axis]).collect();
                coords::flatten(&coords::at(coords, order), &extents)
            }
        }
    }
}

/// How a kernel holds a value that it computes itself.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// The coordinates that an iteration computes.
    pub coords: Vec<Index>,
    /// The accumulator that holds it; `None` for values computed from others.
    pub accumulator: Option<u32>,
}

/// A kernel's expressions under construction.
pub(super) struct Lowering<'a> {
    values: &'a Values<'a>,
    /// Extents of the loop variables.
    pub extents: Vec<u64>,
    pub exprs: Exprs,
    /// The launch arguments so far.
    pub keys: Vec<Key>,
    buffers: Vec<(DType, u64)>,
    own: BTreeMap<Id, Own>,
    known: BTreeMap<(Id, Vec<Index>, Option<ExprId>), ExprId>,
}

type Lowered = Result<ExprId, Misfit>;

impl<'a> Lowering<'a> {
    pub fn new(values: &'a Values<'a>, extents: Vec<u64>, own: BTreeMap<Id, Own>) -> Self {
        let (exprs, known) = (Exprs::default(), BTreeMap::new());
        Self { values, extents, exprs, keys: Vec::new(), buffers: Vec::new(), own, known }
    }

    /// The number of the argument for a key.
    pub fn buffer(&mut self, key: Key, dtype: DType, elements: u64) -> u32 {
        let found = self.keys.iter().position(|known| *known == key);
        found.unwrap_or_else(|| {
            self.keys.push(key);
            self.buffers.push((dtype, elements));
            self.keys.len() - 1
        }) as u32
    }

    /// The argument that holds a node's value.
    pub fn buffer_of(&mut self, id: Id) -> u32 {
        let elements = self.values.dag.nodes[id].elements();
        self.buffer(self.values.key(id), self.values.stored[id], elements)
    }

    fn control(&mut self) -> u32 {
        self.buffer(Key::Control, DType::I32, CONTROL_ELEMENTS)
    }

    /// The value of a node at coordinates; where `guard` is 0, anything that reads nothing out of bounds.
    pub fn value(&mut self, id: Id, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let key = (id, coords.to_vec(), guard);
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let expr = match self.own.get(&id) {
            Some(own) if own.coords != coords => return Err(Misfit),
            Some(Own { accumulator: Some(number), .. }) => {
                let number = *number;
                self.exprs.add(Expr::Accumulator(number))
            }
            Some(_) => self.compute(id, coords, guard)?,
            None if self.values.in_memory(id) => self.load(id, coords, guard),
            None => self.compute(id, coords, guard)?,
        };
        self.known.insert(key, expr);
        Ok(expr)
    }

    fn load(&mut self, id: Id, coords: &[Index], guard: Option<ExprId>) -> ExprId {
        let buffer = self.buffer_of(id);
        let index = self.values.position(id, coords);
        self.exprs.add(Expr::Load { buffer, index, guard })
    }

    /// The coordinates at which this kernel computes a value of its own.
    pub fn own_coords(&self, id: Id) -> Vec<Index> {
        self.own[&id].coords.clone()
    }

    /// A store of a node's value at the coordinates that this kernel computes.
    pub fn store(&mut self, id: Id) -> Result<Store, Misfit> {
        let coords = self.own[&id].coords.clone();
        let value = self.value(id, &coords, None)?;
        let index = self.values.position(id, &coords);
        Ok(Store { buffer: self.buffer_of(id), index, value, accumulate: false })
    }

    fn compute(&mut self, id: Id, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let dag = self.values.dag;
        let node = &dag.nodes[id];
        let operand = |position: usize| node.operands[position];
        match &node.op {
            Op::Constant { value, dtype } => Ok(self.exprs.add(match dtype {
                DType::I32 => Expr::Integer(value.get() as i32),
                _ => Expr::Constant((value.get() as f32).to_bits()),
            })),
            Op::Iota { axis, .. } => Ok(self.exprs.add(Expr::Position(coords[*axis].clone()))),
            Op::Control(field) => Ok(self.control_field(*field)),
            Op::Random { generator, stream, shape, .. } => {
                let (control, element) = (self.control(), coords::flatten(coords, shape));
                let draw = Draw { generator: *generator, stream: *stream, control, element };
                Ok(self.exprs.add(Expr::Random(draw)))
            }
            Op::Unary(function) => {
                let value = self.value(operand(0), coords, guard)?;
                Ok(self.exprs.add(Expr::Unary(*function, value)))
            }
            Op::Binary(function) => {
                let (a, b) = (self.value(operand(0), coords, guard)?, self.value(operand(1), coords, guard)?);
                Ok(self.exprs.add(Expr::Binary(*function, a, b)))
            }
            Op::Select => {
                let condition = self.value(operand(0), coords, guard)?;
                let (a, b) = (self.value(operand(1), coords, guard)?, self.value(operand(2), coords, guard)?);
                Ok(self.exprs.add(Expr::Select(condition, a, b)))
            }
            Op::ToFloat => {
                let value = self.value(operand(0), coords, guard)?;
                Ok(self.exprs.add(Expr::ToFloat(value)))
            }
            Op::ToInteger => {
                let value = self.value(operand(0), coords, guard)?;
                Ok(self.exprs.add(Expr::ToInteger(value)))
            }
            Op::Contract(contraction) => self.product(contraction, [operand(0), operand(1)], coords, guard),
            Op::Gather => self.gather(operand(0), operand(1), coords, guard),
            Op::Pad { axis, before, .. } => self.pad(operand(0), *axis, *before, coords, guard),
            Op::Concat { axis } => self.concat(&node.operands, *axis, coords, guard),
            Op::Unwindow { axis, stride, .. } => self.unwindow(operand(0), *axis, *stride, coords, guard),
            _ => {
                let moved = moved(dag, id, coords, &self.extents).ok_or(Misfit)?;
                self.value(operand(0), &moved, guard)
            }
        }
    }

    fn control_field(&mut self, field: ControlField) -> ExprId {
        let element = match field {
            ControlField::Step => std::mem::offset_of!(Control, step),
            ControlField::Steps => std::mem::offset_of!(Control, steps),
        };
        let buffer = self.control();
        self.exprs.load(buffer, Index::constant((element / size_of::<u32>()) as i64))
    }

    /// One term of a contraction, with labels bound to coordinates of the result.
    fn product(
        &mut self,
        contraction: &Contraction,
        operands: [Id; 2],
        coords: &[Index],
        guard: Option<ExprId>,
    ) -> Lowered {
        let bound: BTreeMap<u8, Index> = contraction.out.iter().copied().zip(coords.iter().cloned()).collect();
        self.term(contraction, operands, &bound, guard)
    }

    /// The product of two factors of a contraction for given values of all labels.
    pub fn term(
        &mut self,
        contraction: &Contraction,
        operands: [Id; 2],
        labels: &BTreeMap<u8, Index>,
        guard: Option<ExprId>,
    ) -> Lowered {
        let [a, b] = self.factors(contraction, operands, labels, guard)?;
        let [a, b] = [a, b].map(|factor| self.exprs.rounded(factor, contraction.precision));
        Ok(self.exprs.add(Expr::Binary(Binary::Mul, a, b)))
    }

    /// The two factors of a contraction, not rounded.
    pub fn factors(
        &mut self,
        contraction: &Contraction,
        operands: [Id; 2],
        labels: &BTreeMap<u8, Index>,
        guard: Option<ExprId>,
    ) -> Result<[ExprId; 2], Misfit> {
        let of = |own: &[u8]| -> Vec<Index> { own.iter().map(|label| labels[label].clone()).collect() };
        let a = self.value(operands[0], &of(&contraction.lhs), guard)?;
        Ok([a, self.value(operands[1], &of(&contraction.rhs), guard)?])
    }

    fn gather(&mut self, table: Id, ids: Id, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let rank = self.values.dag.nodes[ids].shape.len();
        let row = self.value(ids, &coords[..rank], guard)?;
        let place = [&[Index::Value(row)], &coords[rank..]].concat();
        self.value(table, &place, guard)
    }

    fn pad(&mut self, operand: Id, axis: usize, before: u64, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let extent = self.values.dag.nodes[operand].shape[axis];
        let mut inner = coords.to_vec();
        inner[axis] = inner[axis].clone().add(Index::constant(-(before as i64)));
        let within = self.within(&inner[axis], extent);
        self.guarded(operand, &inner, within, guard)
    }

    /// The operand's value where `within` is not 0, else 0.
    fn guarded(&mut self, operand: Id, coords: &[Index], within: Option<ExprId>, guard: Option<ExprId>) -> Lowered {
        let Some(within) = within else { return self.value(operand, coords, guard) };
        let both = self.both(guard, within);
        let value = self.value(operand, coords, Some(both))?;
        if let Expr::Load { guard: Some(own), .. } = self.exprs.get(value)
            && *own == both
        {
            return Ok(value);
        }
        let zero = self.zero(self.values.dag.nodes[operand].dtype);
        Ok(self.exprs.add(Expr::Select(within, value, zero)))
    }

    fn zero(&mut self, dtype: DType) -> ExprId {
        self.exprs.add(if dtype == DType::I32 { Expr::Integer(0) } else { Expr::Constant(0) })
    }

    fn both(&mut self, guard: Option<ExprId>, condition: ExprId) -> ExprId {
        guard.map_or(condition, |guard| self.exprs.add(Expr::Binary(Binary::Mul, guard, condition)))
    }

    /// 1 where `0 <= index < extent`; `None` if that is everywhere.
    fn within(&mut self, index: &Index, extent: u64) -> Option<ExprId> {
        let (low, high) = index.range(&self.extents);
        let position = self.exprs.add(Expr::Position(index.clone()));
        let lower = (low < 0).then(|| {
            let last = self.exprs.add(Expr::Integer(-1));
            self.exprs.add(Expr::Binary(Binary::Less, last, position))
        });
        let upper = (high >= extent as i64).then(|| {
            let end = self.exprs.add(Expr::Integer(extent as i32));
            self.exprs.add(Expr::Binary(Binary::Less, position, end))
        });
        match (lower, upper) {
            (Some(lower), Some(upper)) => Some(self.exprs.add(Expr::Binary(Binary::Mul, lower, upper))),
            (one, other) => one.or(other),
        }
    }

    fn concat(&mut self, operands: &[Id], axis: usize, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let mut before = 0;
        let mut parts = Vec::new();
        for &operand in operands {
            let extent = self.values.dag.nodes[operand].shape[axis];
            let mut inner = coords.to_vec();
            inner[axis] = inner[axis].clone().add(Index::constant(-before));
            let within = self.within(&inner[axis], extent);
            let own = within.map(|within| self.both(guard, within)).or(guard);
            parts.push((within, self.value(operand, &inner, own)?));
            before += extent as i64;
        }
        let mut result = parts.pop().expect("a concatenation has operands").1;
        for (within, value) in parts.into_iter().rev() {
            result = within.map_or(value, |within| self.exprs.add(Expr::Select(within, value, result)));
        }
        Ok(result)
    }

    /// The sum of the windows that an element lies in: offset p of window i where `i * stride + p` is its position.
    fn unwindow(&mut self, operand: Id, axis: usize, stride: u64, coords: &[Index], guard: Option<ExprId>) -> Lowered {
        let (windows, size) = {
            let shape = &self.values.dag.nodes[operand].shape;
            (shape[axis], shape[axis + 1])
        };
        let mut sum = None;
        // Windows in ascending order are offsets in descending order.
        for offset in (0..size).rev() {
            let term = self.window_term(operand, axis, [stride, windows, offset], coords, guard)?;
            sum = Some(sum.map_or(term, |sum| self.exprs.add(Expr::Binary(Binary::Add, sum, term))));
        }
        Ok(sum.expect("windows are not empty"))
    }

    fn window_term(
        &mut self,
        operand: Id,
        axis: usize,
        [stride, windows, offset]: [u64; 3],
        coords: &[Index],
        guard: Option<ExprId>,
    ) -> Lowered {
        // Quotients want what is not negative: shifted up by whole strides, and down again after.
        let shift = offset.div_ceil(stride) as i64;
        let lifted = coords[axis].clone().add(Index::constant(shift * stride as i64 - offset as i64));
        let window = lifted.clone().div(stride as i64, &self.extents).add(Index::constant(-shift));
        let within = self.within(&window, windows);
        let phase = lifted.mod_(stride as i64, &self.extents);
        let aligned = (phase != Index::constant(0)).then(|| {
            let (phase, zero) = (self.exprs.add(Expr::Position(phase)), self.exprs.add(Expr::Integer(0)));
            self.exprs.add(Expr::Binary(Binary::Equal, phase, zero))
        });
        let condition = match (within, aligned) {
            (Some(a), Some(b)) => Some(self.exprs.add(Expr::Binary(Binary::Mul, a, b))),
            (a, b) => a.or(b),
        };
        let mut inner = coords.to_vec();
        inner.splice(axis..=axis, [window, Index::constant(offset as i64)]);
        self.guarded(operand, &inner, condition, guard)
    }

    /// Drops arguments that nothing uses and says how the others are used: by `stores`, and by loads of what they and
    /// `roots` need. Loading what other iterations may have overwritten is a misfit.
    pub fn finish(&self, stores: &[Store], roots: &[ExprId]) -> Result<(Vec<Key>, Vec<Buffer>), Misfit> {
        let in_index = stores.iter().flat_map(|store| store.index.values());
        let needed: Vec<ExprId> =
            stores.iter().map(|store| store.value).chain(roots.iter().copied()).chain(in_index).collect();
        let mut loaded: Vec<Vec<&Index>> = vec![Vec::new(); self.keys.len()];
        for id in self.exprs.reachable(&needed) {
            match self.exprs.get(id) {
                Expr::Load { buffer, index, .. } => loaded[*buffer as usize].push(index),
                Expr::Random(draw) => loaded[draw.control as usize].push(&draw.element),
                _ => {}
            }
        }
        let mut buffers = Vec::new();
        for (number, &(dtype, elements)) in self.buffers.iter().enumerate() {
            let own: Vec<&Store> = stores.iter().filter(|store| store.buffer as usize == number).collect();
            buffers.push(Buffer { dtype, elements, access: access(&own, &loaded[number])? });
        }
        Ok((self.keys.clone(), buffers))
    }
}

/// How a kernel uses a buffer, given what it stores there and which elements it loads.
fn access(stores: &[&Store], loads: &[&Index]) -> Result<Access, Misfit> {
    let adds = stores.iter().any(|store| store.accumulate);
    match stores {
        [] => Ok(Access::Read),
        _ if loads.is_empty() && !adds => Ok(Access::Write),
        _ if loads.is_empty() => Ok(Access::ReadWrite),
        [store] if !adds && loads.iter().all(|&index| *index == store.index) => Ok(Access::ReadWrite),
        _ => Err(Misfit),
    }
}

/// The operand's coordinates under an index map; `None` for other operations.
fn moved(dag: &Dag, id: Id, coords: &[Index], extents: &[u64]) -> Option<Vec<Index>> {
    let node = &dag.nodes[id];
    let operand = || &dag.nodes[node.operands[0]].shape;
    match &node.op {
        Op::StopGradient => Some(coords.to_vec()),
        Op::Broadcast { axes, .. } => Some(coords::at(coords, axes)),
        Op::Reshape { .. } => Some(coords::reshape(coords, &node.shape, operand(), extents)),
        Op::Permute { axes } => {
            let mut inner = coords.to_vec();
            axes.iter().zip(coords).for_each(|(&axis, coord)| inner[axis] = coord.clone());
            Some(inner)
        }
        Op::Slice { axis, start, .. } => {
            let mut inner = coords.to_vec();
            inner[*axis] = inner[*axis].clone().add(Index::constant(*start as i64));
            Some(inner)
        }
        Op::Window { axis, stride, .. } => {
            let mut inner = coords.to_vec();
            let position = inner[*axis].clone().mul(*stride as i64).add(inner[*axis + 1].clone());
            inner.splice(*axis..=*axis + 1, [position]);
            Some(inner)
        }
        _ => None,
    }
}
