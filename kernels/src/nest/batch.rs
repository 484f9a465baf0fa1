//! Lowering of [`Batch`]es: each tile of a batch is the same share of all of its nests.
//!
//! So threads that get equal numbers of tiles get equal work, however different the nests are. Calls of one part share
//! its code.

use super::{Plan, WORK_PER_TILE, emit, merged};
use crate::{
    emit::builder::{Builder, Elem},
    ir::{Batch, Body, Nest, Part},
    stage::{Lowered, Stage, emit_shared, emit_stage, tile_count},
};

/// The nest of a part, with as few loops as its accesses allow.
pub(crate) fn nest_of(part: &Part) -> Nest {
    match &part.kernel.body {
        Body::Nest(nest) => merged(nest),
        _ => unreachable!("verified: parts are nests"),
    }
}

/// Lowers a verified batch.
pub(crate) fn lower(b: &mut Builder, batch: &Batch, lanes: u32, name: &str) -> Lowered {
    let nests: Vec<Nest> = batch.parts.iter().map(nest_of).collect();
    let plans: Vec<Plan> = nests.iter().map(|nest| Plan::new(nest, lanes)).collect();
    let units = plans.iter().map(|plan| plan.units).max().unwrap_or(1);
    let work = plans.iter().zip(&batch.parts).map(|(plan, part)| plan.work.saturating_mul(part.times));
    let tiles = tile_count(units, work.fold(0, u64::saturating_add), WORK_PER_TILE);
    let symbols: Vec<String> = (0..nests.len()).map(|part| format!("{name}_part{part}")).collect();
    for ((symbol, nest), (plan, part)) in symbols.iter().zip(&nests).zip(plans.into_iter().zip(&batch.parts)) {
        emit_shared(b, symbol, |b, stage| emit(b, &part.kernel.buffers, nest, (plan, lanes), stage, tiles));
    }
    let symbol = format!("{name}_0");
    emit_stage(b, &symbol, |b, stage| {
        for (symbol, (first, part)) in symbols.iter().zip(batch.placed()) {
            let each = part.kernel.buffers.len();
            (0..part.times as usize).for_each(|call| self::call(b, symbol, stage, first + call * each));
        }
    });
    Lowered { stages: vec![(symbol, tiles)], scratch_bytes: 0 }
}

/// Calls the function of a part, whose arguments begin at `first`.
fn call(b: &mut Builder, symbol: &str, stage: Stage, first: usize) {
    let first = b.i64(first as i64);
    let args = b.address(stage.args, first, Elem::Pointer);
    b.call(symbol, &Stage { args, ..stage }.values());
}
