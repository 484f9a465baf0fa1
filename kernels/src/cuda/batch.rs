//! Lowering of [`Batch`]es: the grids of all nests one after the other, in one grid.
//!
//! All blocks have as many threads as those of the widest nest; the others put more teams into a block. Which nest a block
//! belongs to is the same for all of its threads, so that they meet at the barriers of that nest alone.

use super::{
    DeviceStage,
    nest::{Plan, emit, ordered},
};
use crate::{
    emit::builder::{Block, Builder, Compare, Value},
    ir::{Batch, Buffer, Nest},
    nest::batch::nest_of,
};

/// A part with its place in the grid.
struct Placed<'a> {
    nest: Nest,
    plan: Plan,
    buffers: &'a [Buffer],
    /// The first of its launch arguments.
    first_argument: usize,
    /// How often it is called, on arguments that follow each other.
    times: u64,
    /// Its first block.
    first_block: u64,
}

impl Placed<'_> {
    /// The block after its last.
    fn end(&self) -> u64 {
        self.first_block + self.times * self.plan.blocks()
    }
}

/// Lowers a verified batch to one launch.
pub(super) fn lower(b: &mut Builder, batch: &Batch, name: &str) -> DeviceStage {
    let parts = placed(batch);
    let threads = parts.first().map_or(1, |part| part.plan.threads()) as u32;
    let together = parts.iter().find_map(|part| part.plan.together());
    let arguments = batch.parts.iter().map(|part| part.kernel.buffers.len() * part.times as usize).sum();
    let symbol = format!("{name}_0");
    super::entry(b, &symbol, Block { threads, together }, arguments, |b, pointers, instance| {
        let block = b.block();
        dispatch(b, &parts, &pointers, [instance, block]);
    });
    let shared_bytes = parts.iter().map(|part| part.plan.shared_bytes()).max().unwrap_or(0) as u32;
    DeviceStage { symbol, blocks: parts.last().map_or(1, Placed::end), threads, shared_bytes }
}

fn placed(batch: &Batch) -> Vec<Placed<'_>> {
    let nests: Vec<Nest> = batch.parts.iter().map(|part| ordered(&nest_of(part))).collect();
    let plans: Vec<Plan> = nests.iter().map(Plan::new).collect();
    let threads = plans.iter().map(Plan::threads).max().unwrap_or(1);
    let mut parts: Vec<Placed> = Vec::new();
    for ((nest, plan), (first_argument, part)) in nests.into_iter().zip(plans).zip(batch.placed()) {
        let first_block = parts.last().map_or(0, Placed::end);
        let (plan, buffers) = (plan.widened(threads), &part.kernel.buffers[..]);
        parts.push(Placed { nest, plan, buffers, first_argument, times: part.times, first_block });
    }
    parts
}

/// Does what the part does that the block belongs to.
fn dispatch(b: &mut Builder, parts: &[Placed], pointers: &[Value], [instance, block]: [Value; 2]) {
    let Some((part, rest)) = parts.split_first() else { return };
    if rest.is_empty() {
        return call(b, part, pointers, [instance, block]);
    }
    let end = b.i64(part.end() as i64);
    let mine = b.compare(Compare::Less, block, end);
    let open = b.begin_if(mine, &[]);
    call(b, part, pointers, [instance, block]);
    b.begin_else(&[]);
    dispatch(b, rest, pointers, [instance, block]);
    b.end_if(open, &[]);
}

fn call(b: &mut Builder, part: &Placed, pointers: &[Value], [instance, block]: [Value; 2]) {
    let first = b.i64(part.first_block as i64);
    let block = b.sub_known(block, first);
    let (block, call) = if part.times == 1 { (block, None) } else { of_call(b, part, block) };
    let pointers = (0..part.buffers.len()).map(|buffer| argument(b, part, pointers, buffer, call)).collect();
    emit(b, (part.buffers, pointers), &part.nest, &part.plan, [instance, block]);
}

/// The number of the block within its call, and of the call.
fn of_call(b: &mut Builder, part: &Placed, block: Value) -> (Value, Option<Value>) {
    let (block, call) = b.split(block, part.plan.blocks());
    (block, Some(call))
}

/// The address of a buffer in a call; `None` stands for the only call.
fn argument(b: &mut Builder, part: &Placed, pointers: &[Value], buffer: usize, call: Option<Value>) -> Value {
    let of = |call: u64| pointers[part.first_argument + call as usize * part.buffers.len() + buffer];
    let Some(call) = call else { return of(0) };
    (1..part.times).fold(of(0), |others, number| {
        let number_value = b.i64(number as i64);
        let this = b.compare(Compare::Equal, call, number_value);
        b.select(this, of(number), others)
    })
}
