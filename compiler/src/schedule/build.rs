//! From groups of nodes to kernels.

use super::{
    coords,
    dag::{Dag, Id},
    domain::{Domain, Level},
    lower::{Key, Lowering, Misfit, Own, Values},
    pack::Part,
    refine::Loops,
    select::{Sides, class},
};
use crate::graph::{AttentionSpec, Class, Contraction, Mask, Op};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::ir::{
    Access, Attention, AttentionBackward, AttentionShape, Binary, Body, Buffer, DType, Expr, ExprId, Exprs, Gemm,
    Index, Kernel, Nest, ReduceKind, Reduction, Store, Sweep, View,
};

/// Most functions that a label names.
const NAMED_FUNCTIONS: usize = 4;

/// What a group computes its members with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Element-wise work and reductions.
    Nest,
    /// A matrix product, this one, and what is done to its elements.
    Product(Id),
    /// One scatter.
    Scatter(Id),
    /// One attention, forward or backward.
    Attention(Id),
}

impl Kind {
    pub fn of(dag: &Dag, id: Id) -> Kind {
        match class(dag, id) {
            Class::Product => Kind::Product(id),
            Class::Scatter => Kind::Scatter(id),
            Class::Attention => Kind::Attention(id),
            _ => Kind::Nest,
        }
    }
}

/// What a group must leave in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Members that others read.
    pub stored: BTreeSet<Id>,
    /// Members with the [`Op::SumInstances`] that add them up.
    pub summed: BTreeMap<Id, Vec<Id>>,
}

/// A kernel with what its arguments stand for.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub kernel: Kernel,
    pub args: Vec<Key>,
}

/// The kernels that compute `members` (ascending) over `domain`, in order of launching.
pub(super) fn kernels(
    values: &Values,
    kind: Kind,
    members: &[Id],
    domain: &Domain,
    wanted: &Wanted,
) -> Result<Vec<Template>, Misfit> {
    match kind {
        Kind::Nest => nest(values, members, domain, wanted).map(|kernel| vec![kernel]),
        Kind::Product(product) => gemm(values, product, members, wanted).map(|kernel| vec![kernel]),
        Kind::Scatter(scatter) => scatter_kernels(values, scatter, wanted),
        Kind::Attention(attention) => attention_kernel(values, attention).map(|kernel| vec![kernel]),
    }
}

/// The stores of one member: of its value, and of what is added up over instances.
fn stores_of(lowering: &mut Lowering, dag: &Dag, id: Id, wanted: &Wanted) -> Result<Vec<Store>, Misfit> {
    let mut stores = Vec::new();
    for &sum in wanted.summed.get(&id).into_iter().flatten() {
        let coords = lowering.own_coords(id);
        let value = lowering.value(id, &coords, None)?;
        let buffer = lowering.buffer(Key::Node(sum), dag.nodes[sum].dtype, dag.nodes[sum].elements());
        let index = coords::flatten(&coords, &dag.nodes[id].shape);
        stores.push(Store { buffer, index, value, accumulate: true });
    }
    if wanted.stored.contains(&id) {
        stores.push(lowering.store(id)?);
    }
    Ok(stores)
}

/// A nest under construction.
struct NestPlan<'a> {
    values: &'a Values<'a>,
    domain: &'a Domain,
    /// Reductions with the sweep that computes them, in order of sweeps.
    reductions: Vec<(Id, usize)>,
    own: BTreeMap<Id, Own>,
}

fn nest(values: &Values, members: &[Id], domain: &Domain, wanted: &Wanted) -> Result<Template, Misfit> {
    let plan = NestPlan::new(values, members, domain)?;
    let mut lowering = Lowering::new(values, domain.loops(), plan.own.clone());
    let mut sweeps = plan.sweeps(&mut lowering)?;
    let rows = plan.place_stores(&mut lowering, &mut sweeps, members, wanted)?;
    sweeps.retain(|sweep| !sweep.reductions.is_empty() || !sweep.stores.is_empty());
    if !rows.is_empty() {
        sweeps.push(Sweep { once: true, reductions: Vec::new(), stores: rows });
    }
    let groups = vec![domain.extents(true), domain.extents(false)];
    finish_nest(lowering, groups, sweeps)
}

/// Refines the loops and settles the buffers of a nest.
fn finish_nest(lowering: Lowering, groups: Vec<Vec<u64>>, mut sweeps: Vec<Sweep>) -> Result<Template, Misfit> {
    let stores: Vec<Store> = sweeps.iter().flat_map(|sweep| sweep.stores.clone()).collect();
    let reduced: Vec<ExprId> =
        sweeps.iter().flat_map(|sweep| &sweep.reductions).map(|reduction| reduction.value).collect();
    let (keys, buffers) = lowering.finish(&stores, &reduced)?;
    let mut loops = Loops { groups, exprs: lowering.exprs, stores, roots: reduced };
    loops.refine();
    let (mut stores, mut reduced) = (loops.stores.into_iter(), loops.roots.into_iter());
    for sweep in &mut sweeps {
        sweep.stores.iter_mut().for_each(|store| *store = stores.next().expect("as many as before"));
        sweep.reductions.iter_mut().for_each(|reduction| reduction.value = reduced.next().expect("as many as before"));
    }
    let [parallel, inner] = <[Vec<u64>; 2]>::try_from(loops.groups).expect("two groups of loops");
    let nest = Nest { parallel, inner, exprs: loops.exprs, sweeps };
    let label = nest_label(&nest);
    Ok(Template { kernel: Kernel { label, buffers, body: Body::Nest(nest) }, args: keys })
}

impl<'a> NestPlan<'a> {
    fn new(values: &'a Values<'a>, members: &[Id], domain: &'a Domain) -> Result<Self, Misfit> {
        let dag = values.dag;
        let is_reduction = |id: &&Id| class(dag, **id) == Class::Reduction;
        let reduced: BTreeSet<Id> = members.iter().filter(is_reduction).copied().collect();
        let mut sweeps =
            Sweeps { values, members: members.iter().copied().collect(), reduced: &reduced, known: BTreeMap::new() };
        let mut reductions: Vec<(Id, usize)> = reduced.iter().map(|&id| (id, sweeps.of_operands(id))).collect();
        reductions.sort_by_key(|&(id, sweep)| (sweep, id));
        let mut own = BTreeMap::new();
        for &id in members {
            let number = reductions.iter().position(|&(reduction, _)| reduction == id);
            let level = if number.is_some() { Level::Row } else { domain.level(&dag.nodes[id]).ok_or(Misfit)? };
            let coords = domain.coords(&dag.nodes[id].shape, level);
            own.insert(id, Own { coords, accumulator: number.map(|number| number as u32) });
        }
        Ok(Self { values, domain, reductions, own })
    }

    /// One sweep for each depth of reductions, and one more for what needs them all.
    fn sweeps(&self, lowering: &mut Lowering) -> Result<Vec<Sweep>, Misfit> {
        let depth = self.reductions.last().map_or(0, |&(_, sweep)| sweep + 1);
        let mut sweeps = vec![Sweep { once: false, reductions: Vec::new(), stores: Vec::new() }; depth + 1];
        for &(id, sweep) in &self.reductions {
            let reduction = self.reduction(lowering, id)?;
            sweeps[sweep].reductions.push(reduction);
        }
        Ok(sweeps)
    }

    fn reduction(&self, lowering: &mut Lowering, id: Id) -> Result<Reduction, Misfit> {
        let node = &self.values.dag.nodes[id];
        let row = &self.own[&id].coords;
        match &node.op {
            Op::Reduce { kind, axes } => {
                let shape = &self.values.dag.nodes[node.operands[0]].shape;
                let extents: Vec<u64> = axes.iter().map(|&axis| shape[axis]).collect();
                let mut reduced = self.domain.reduced_coords(&extents).into_iter();
                let mut kept = row.iter().cloned();
                let of_axis = |axis: usize| if axes.contains(&axis) { reduced.next() } else { kept.next() };
                let coords: Vec<Index> =
                    (0..shape.len()).map(of_axis).map(|coord| coord.expect("a coordinate per axis")).collect();
                Ok(Reduction { kind: *kind, value: lowering.value(node.operands[0], &coords, None)? })
            }
            Op::Contract(contraction) => {
                let sides = Sides::of(self.values.dag, id, contraction);
                let extents: Vec<u64> = sides.k.iter().map(|label| sides.extents[label]).collect();
                let summed = sides.k.iter().copied().zip(self.domain.reduced_coords(&extents));
                let labels = contraction.out.iter().copied().zip(row.iter().cloned()).chain(summed).collect();
                let value = lowering.term(contraction, [node.operands[0], node.operands[1]], &labels, None)?;
                Ok(Reduction { kind: ReduceKind::Sum, value })
            }
            op => unreachable!("not a reduction: {op:?}"),
        }
    }

    /// Puts the stores of whole values into sweeps; returns those of rows.
    fn place_stores(
        &self,
        lowering: &mut Lowering,
        sweeps: &mut [Sweep],
        members: &[Id],
        wanted: &Wanted,
    ) -> Result<Vec<Store>, Misfit> {
        let reduced: BTreeSet<Id> = self.reductions.iter().map(|&(id, _)| id).collect();
        let mut order = Sweeps {
            values: self.values,
            members: members.iter().copied().collect(),
            reduced: &reduced,
            known: BTreeMap::new(),
        };
        let mut rows = Vec::new();
        for &id in members {
            let stores = stores_of(lowering, self.values.dag, id, wanted)?;
            let is_row = reduced.contains(&id) || self.domain.level(&self.values.dag.nodes[id]) == Some(Level::Row);
            if is_row && self.domain.reduces() {
                rows.extend(stores);
            } else {
                sweeps[order.of(id)].stores.extend(stores);
            }
        }
        self.delay_overwriting(lowering, sweeps);
        Ok(rows)
    }

    /// A store into a buffer that later sweeps still load from moves to the last of them.
    fn delay_overwriting(&self, lowering: &Lowering, sweeps: &mut [Sweep]) {
        let loads = |sweep: &Sweep| -> BTreeSet<u32> { loaded(&lowering.exprs, sweep) };
        let loaded: Vec<BTreeSet<u32>> = sweeps.iter().map(loads).collect();
        for position in 0..sweeps.len() {
            let (late, now): (Vec<Store>, Vec<Store>) = std::mem::take(&mut sweeps[position].stores)
                .into_iter()
                .partition(|store| loaded[position + 1..].iter().any(|later| later.contains(&store.buffer)));
            sweeps[position].stores = now;
            for store in late {
                let last = loaded.iter().rposition(|later| later.contains(&store.buffer)).expect("loaded later");
                sweeps[last].stores.push(store);
            }
        }
    }
}

/// Buffers that a sweep loads from.
fn loaded(exprs: &Exprs, sweep: &Sweep) -> BTreeSet<u32> {
    let reduced = sweep.reductions.iter().map(|reduction| reduction.value);
    let roots: Vec<ExprId> = reduced.chain(sweep.stores.iter().map(|store| store.value)).collect();
    let buffer = |id: ExprId| match exprs.get(id) {
        Expr::Load { buffer, .. } => Some(*buffer),
        _ => None,
    };
    exprs.reachable(&roots).into_iter().filter_map(buffer).collect()
}

/// The first sweep in which a value can be computed: after those of the reductions that it needs.
struct Sweeps<'a> {
    values: &'a Values<'a>,
    members: BTreeSet<Id>,
    reduced: &'a BTreeSet<Id>,
    known: BTreeMap<Id, usize>,
}

impl Sweeps<'_> {
    fn of(&mut self, id: Id) -> usize {
        if let Some(&known) = self.known.get(&id) {
            return known;
        }
        let sweep = match () {
            () if self.reduced.contains(&id) => self.of_operands(id) + 1,
            () if self.members.contains(&id) || !self.values.in_memory(id) => self.of_operands(id),
            () => 0,
        };
        self.known.insert(id, sweep);
        sweep
    }

    fn of_operands(&mut self, id: Id) -> usize {
        let operands = &self.values.dag.nodes[id].operands;
        operands.iter().map(|&operand| self.of(operand)).max().unwrap_or(0)
    }
}

fn gemm(values: &Values, product: Id, members: &[Id], wanted: &Wanted) -> Result<Template, Misfit> {
    let dag = values.dag;
    let node = &dag.nodes[product];
    let Op::Contract(contraction) = &node.op else { unreachable!("a product is a contraction") };
    let (contraction, operands) = with_contiguous_columns(dag, product, contraction);
    let sides = Sides::of_operands(dag, operands, &contraction);
    let groups: Vec<Vec<u64>> =
        [&sides.batch, &sides.m, &sides.n, &sides.k].iter().map(|labels| sides.sizes(labels)).collect();
    let order = [&sides.batch[..], &sides.m, &sides.n, &sides.k].concat();
    let labels: BTreeMap<u8, Index> = order.iter().zip(0..).map(|(&label, var)| (label, Index::var(var))).collect();
    let point: Vec<Index> = contraction.out.iter().map(|label| labels[label].clone()).collect();
    let extents = groups.concat();
    let own = |&id: &Id| {
        let coords = coords::reshape(&point, &node.shape, &dag.nodes[id].shape, &extents);
        (id, Own { coords, accumulator: (id == product).then_some(0) })
    };
    let mut lowering = Lowering::new(values, extents.clone(), members.iter().map(own).collect());
    let factors = lowering.factors(&contraction, operands, &labels, None)?;
    let mut stores = Vec::new();
    for &id in members {
        stores.extend(stores_of(&mut lowering, dag, id, wanted)?);
    }
    let (args, buffers) = lowering.finish(&stores, &factors)?;
    let mut loops = Loops { groups, exprs: lowering.exprs, stores, roots: factors.to_vec() };
    loops.refine();
    let [batch, m, n, k] = <[Vec<u64>; 4]>::try_from(loops.groups).expect("four groups of loops");
    let Loops { exprs, stores, roots, .. } = loops;
    let label = gemm_label(&exprs, &stores);
    let gemm = Gemm { batch, m, n, k, exprs, lhs: roots[0], rhs: roots[1], precision: contraction.precision, stores };
    Ok(Template { kernel: Kernel { label, buffers, body: Body::Gemm(gemm) }, args })
}

/// The contraction with its operands in the order that makes the result's last axis a column.
fn with_contiguous_columns(dag: &Dag, id: Id, contraction: &Contraction) -> (Contraction, [Id; 2]) {
    let operands = [dag.nodes[id].operands[0], dag.nodes[id].operands[1]];
    let last_is_row = contraction.out.last().is_some_and(|last| !contraction.rhs.contains(last));
    if !last_is_row {
        return (contraction.clone(), operands);
    }
    let Contraction { lhs, rhs, out, precision } = contraction.clone();
    (Contraction { lhs: rhs, rhs: lhs, out, precision }, [operands[1], operands[0]])
}

/// Zeros (unless it accumulates onto a value), then one addition for each id, in order.
fn scatter_kernels(values: &Values, id: Id, wanted: &Wanted) -> Result<Vec<Template>, Misfit> {
    let node = &values.dag.nodes[id];
    let mut kernels = Vec::new();
    if node.operands.len() == 2 {
        kernels.push(fill(values.key(id), node.dtype, &node.shape));
    }
    let (ids, updates) = (node.operands[0], node.operands[1]);
    let shape = &values.dag.nodes[ids].shape;
    let domain = Domain {
        shape: values.dag.nodes[updates].shape.clone(),
        kept: (0..values.dag.nodes[updates].shape.len()).map(|axis| axis >= shape.len()).collect(),
    };
    let mut lowering = Lowering::new(values, domain.loops(), BTreeMap::new());
    let row = lowering.value(ids, &domain.vars(false), None)?;
    let value = lowering.value(updates, &domain.point(), None)?;
    let place = [vec![Index::Value(row)], domain.vars(true)].concat();
    let index = values.position(id, &place);
    let mut targets = vec![values.key(id)];
    targets.extend(wanted.summed.get(&id).into_iter().flatten().map(|&sum| Key::Node(sum)));
    let stores = targets.into_iter().map(|key| {
        let buffer = lowering.buffer(key, node.dtype, node.elements());
        Store { buffer, index: index.clone(), value, accumulate: true }
    });
    let stores = stores.collect();
    let sweep = Sweep { once: false, reductions: Vec::new(), stores };
    kernels.push(finish_nest(lowering, vec![domain.extents(true), domain.extents(false)], vec![sweep])?);
    Ok(kernels)
}

/// A kernel that fills a buffer with zeros.
pub(super) fn fill(key: Key, dtype: DType, shape: &[u64]) -> Template {
    let mut exprs = Exprs::default();
    let value = exprs.add(if dtype == DType::I32 { Expr::Integer(0) } else { Expr::Constant(0) });
    let elements = shape.iter().product();
    let store = Store { buffer: 0, index: Index::var(0), value, accumulate: false };
    let sweeps = vec![Sweep { once: false, reductions: Vec::new(), stores: vec![store] }];
    let body = Body::Nest(Nest { parallel: vec![elements], inner: Vec::new(), exprs, sweeps });
    let buffers = vec![Buffer { dtype, elements, access: Access::Write }];
    Template { kernel: Kernel { label: "zeros".into(), buffers, body }, args: vec![key] }
}

/// A kernel that adds one buffer to another.
pub(super) fn add(to: Key, from: Key, dtype: DType, shape: &[u64]) -> Template {
    let mut exprs = Exprs::default();
    let value = exprs.load(1, Index::var(0));
    let elements = shape.iter().product();
    let store = Store { buffer: 0, index: Index::var(0), value, accumulate: true };
    let sweeps = vec![Sweep { once: false, reductions: Vec::new(), stores: vec![store] }];
    let body = Body::Nest(Nest { parallel: vec![elements], inner: Vec::new(), exprs, sweeps });
    let buffers = [Access::ReadWrite, Access::Read].map(|access| Buffer { dtype, elements, access }).to_vec();
    Template { kernel: Kernel { label: "add".into(), buffers, body }, args: vec![to, from] }
}

/// Views of attention's operands and results.
struct Views<'a> {
    values: &'a Values<'a>,
    args: Vec<Key>,
    buffers: Vec<Buffer>,
}

impl Views<'_> {
    fn buffer(&mut self, key: Key, dtype: DType, elements: u64, access: Access) -> u32 {
        let found = self.args.iter().position(|known| *known == key);
        found.unwrap_or_else(|| {
            self.args.push(key);
            self.buffers.push(Buffer { dtype, elements, access });
            self.args.len() - 1
        }) as u32
    }

    /// An operand, read in place.
    fn operand(&mut self, id: Id) -> Result<View, Misfit> {
        let shape = self.values.dag.nodes[id].shape.clone();
        let mut lowering = Lowering::new(self.values, shape.clone(), BTreeMap::new());
        let value = lowering.value(id, &axes(shape.len()), None)?;
        let Expr::Load { index, guard: None, .. } = lowering.exprs.get(value).clone() else { return Err(Misfit) };
        let (keys, buffers) = lowering.finish(&[], &[value])?;
        let buffer = self.buffer(keys[0], buffers[0].dtype, buffers[0].elements, Access::Read);
        view(buffer, &index, &shape, &lowering.exprs)
    }

    /// Result number `number` of attention `id`: the value of `node`, or of nobody's.
    fn result(&mut self, id: Id, number: u32, node: Option<Id>, shape: &[u64]) -> Result<View, Misfit> {
        let (own, values) = (axes(shape.len()), self.values);
        let of_part = |Part { whole, coords }: &Part| {
            let elements = values.dag.nodes[*whole].elements();
            (values.key(*whole), values.stored[*whole], elements, values.position(*whole, coords))
        };
        let elements = shape.iter().product();
        let (key, dtype, elements, index) = match node.map(|node| (node, values.dag.parts.get(&node))) {
            Some((_, Some(part))) => of_part(part),
            Some((node, None)) => (values.key(node), values.stored[node], elements, values.position(node, &own)),
            None => (Key::Temporary(id, number), DType::F32, elements, coords::flatten(&own, shape)),
        };
        let buffer = self.buffer(key, dtype, elements, Access::Write);
        view(buffer, &index, shape, &Exprs::default())
    }

    /// The node that stands for a further result.
    fn further(&self, id: Id, number: u32) -> Option<Id> {
        let is_it = |node: &super::dag::Node| node.op == Op::Project { index: number } && node.operands[0] == id;
        self.values.dag.nodes.iter().position(is_it)
    }
}

fn axes(rank: usize) -> Vec<Index> {
    (0..rank as u32).map(Index::var).collect()
}

fn view(buffer: u32, index: &Index, shape: &[u64], exprs: &Exprs) -> Result<View, Misfit> {
    let mut strides = [0; 4];
    for (axis, stride) in strides.iter_mut().enumerate().take(shape.len()) {
        let step = index.stride_of(axis as u32, exprs).ok_or(Misfit)?;
        *stride = u64::try_from(step).map_err(|_| Misfit)?;
    }
    let offset = index.evaluate(&vec![0; shape.len()], &mut |_| 0);
    Ok(View { buffer, offset: u64::try_from(offset).map_err(|_| Misfit)?, strides })
}

fn attention_kernel(values: &Values, id: Id) -> Result<Template, Misfit> {
    let node = &values.dag.nodes[id];
    let shape = |position: usize| values.dag.nodes[node.operands[position]].shape.clone();
    let (queries, keys) = (shape(0), shape(1));
    let mut views = Views { values, args: Vec::new(), buffers: Vec::new() };
    let (label, body) = match &node.op {
        Op::Attention(spec) => {
            let shape = attention_shape(spec, &queries, &keys);
            ("attention", Body::Attention(forward(&mut views, id, shape, &queries)?))
        }
        Op::AttentionBackward(spec) => {
            let shape = attention_shape(spec, &queries, &keys);
            ("attention backward", Body::AttentionBackward(backward(&mut views, id, shape, [&queries, &keys])?))
        }
        op => unreachable!("not attention: {op:?}"),
    };
    Ok(Template { kernel: Kernel { label: label.into(), buffers: views.buffers, body }, args: views.args })
}

fn forward(views: &mut Views, id: Id, shape: AttentionShape, queries: &[u64]) -> Result<Attention, Misfit> {
    let operands = views.values.dag.nodes[id].operands.clone();
    let lse = views.further(id, 1);
    Ok(Attention {
        shape,
        q: views.operand(operands[0])?,
        k: views.operand(operands[1])?,
        v: views.operand(operands[2])?,
        o: views.result(id, 0, Some(id), queries)?,
        lse: lse.map(|lse| views.result(id, 1, Some(lse), &queries[..3])).transpose()?,
    })
}

fn backward(
    views: &mut Views,
    id: Id,
    shape: AttentionShape,
    [queries, keys]: [&[u64]; 2],
) -> Result<AttentionBackward, Misfit> {
    let operands = views.values.dag.nodes[id].operands.clone();
    let (d_k, d_v) = (views.further(id, 1), views.further(id, 2));
    Ok(AttentionBackward {
        shape,
        q: views.operand(operands[0])?,
        k: views.operand(operands[1])?,
        v: views.operand(operands[2])?,
        o: views.operand(operands[3])?,
        lse: views.operand(operands[4])?,
        d_o: views.operand(operands[5])?,
        d_q: views.result(id, 0, Some(id), queries)?,
        d_k: views.result(id, 1, d_k, keys)?,
        d_v: views.result(id, 2, d_v, keys)?,
        delta: views.buffer(Key::Temporary(id, 3), DType::F32, queries[..3].iter().product(), Access::Write),
    })
}

fn attention_shape(spec: &AttentionSpec, queries: &[u64], keys: &[u64]) -> AttentionShape {
    AttentionShape {
        batch: queries[0],
        heads: queries[1],
        kv_heads: keys[1],
        queries: queries[2],
        keys: keys[2],
        channels: queries[3],
        causal: spec.mask != Mask::Full,
        window: match spec.mask {
            Mask::Window(size) => Some(size),
            Mask::Full | Mask::Causal => None,
        },
        scale_bits: (spec.scale.get() as f32).to_bits(),
        precision: spec.precision,
    }
}

/// Names of the functions that expressions are made of, each once.
fn functions(exprs: &Exprs, roots: &[ExprId]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for id in exprs.reachable(roots) {
        let name = match exprs.get(id) {
            Expr::Unary(function, _) => function.name(),
            Expr::Binary(Binary::Less | Binary::LessEqual | Binary::Equal, ..) => "compare",
            Expr::Binary(function, ..) => function.name(),
            Expr::Select(..) => "select",
            Expr::Random(_) => "random",
            Expr::Load { index, .. } if !index.values().is_empty() => "gather",
            _ => continue,
        };
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    if names.len() > NAMED_FUNCTIONS {
        names.truncate(NAMED_FUNCTIONS - 1);
        names.push("...".into());
    }
    names
}

fn nest_label(nest: &Nest) -> String {
    let reductions: Vec<&Reduction> = nest.sweeps.iter().flat_map(|sweep| &sweep.reductions).collect();
    let stores: Vec<&Store> = nest.sweeps.iter().flat_map(|sweep| &sweep.stores).collect();
    let scatters = stores.iter().any(|store| !store.index.values().is_empty());
    let roots: Vec<ExprId> =
        reductions.iter().map(|reduction| reduction.value).chain(stores.iter().map(|store| store.value)).collect();
    let mut parts: Vec<String> = Vec::new();
    for reduction in reductions {
        let name = match reduction.kind {
            ReduceKind::Sum => "sum",
            ReduceKind::Max => "max",
            ReduceKind::ArgMax => "argmax",
        };
        if !parts.iter().any(|known| known == name) {
            parts.push(name.into());
        }
    }
    if scatters {
        parts.push("scatter".into());
    }
    let functions = functions(&nest.exprs, &roots);
    match (parts.is_empty(), functions.is_empty()) {
        (true, true) => "copy".into(),
        (true, false) => functions.join(" "),
        (false, true) => parts.join(" "),
        (false, false) => format!("{} of {}", parts.join(" "), functions.join(" ")),
    }
}

fn gemm_label(exprs: &Exprs, stores: &[Store]) -> String {
    let roots: Vec<ExprId> = stores.iter().map(|store| store.value).collect();
    let mut parts = vec!["matmul".to_string()];
    parts.extend(functions(exprs, &roots));
    parts.join(" + ")
}
