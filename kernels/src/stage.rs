//! What all bodies share: the function of a stage, and how its work is cut into tiles.

use crate::emit::builder::{Builder, Type, Value};

/// Tiles of a stage at most: divides evenly over the usual numbers of threads, and leaves little to wait for.
const MAX_TILES: u64 = 64;

/// What lowering a kernel leaves behind besides code.
pub(crate) struct Lowered {
    /// Symbol and number of tiles of each stage.
    pub stages: Vec<(String, u64)>,
    /// Private memory of a thread.
    pub scratch_bytes: u64,
}

/// The arguments of a [`trainc_runtime::abi::StageFn`].
#[derive(Clone, Copy)]
pub(crate) struct Stage {
    pub args: Value,
    pub instance: Value,
    pub begin: Value,
    pub end: Value,
    pub scratch: Value,
}

impl Stage {
    /// The values as arguments of another function of this type.
    pub fn values(self) -> [Value; 5] {
        [self.args, self.instance, self.begin, self.end, self.scratch]
    }
}

/// Emits the function of a stage.
pub(crate) fn emit_stage(b: &mut Builder, symbol: &str, emit: impl FnOnce(&mut Builder, Stage)) {
    emit_function(b, symbol, true, emit);
}

/// Emits a function that stages call with arguments of their own.
pub(crate) fn emit_shared(b: &mut Builder, symbol: &str, emit: impl FnOnce(&mut Builder, Stage)) {
    emit_function(b, symbol, false, emit);
}

fn emit_function(b: &mut Builder, symbol: &str, public: bool, emit: impl FnOnce(&mut Builder, Stage)) {
    let types = [Type::POINTER, Type::I64, Type::I64, Type::I64, Type::POINTER];
    b.function(symbol, public, &types, |b, values| {
        let &[args, instance, begin, end, scratch] = values else { unreachable!("five parameters were declared") };
        emit(b, Stage { args, instance, begin, end, scratch });
    });
}

/// Into how many tiles to cut `units` of work: a power of two, one for what is too small to share.
pub(crate) fn tile_count(units: u64, work: u64, work_per_tile: u64) -> u64 {
    let wanted = units.min(work / work_per_tile).clamp(1, MAX_TILES);
    1 << wanted.ilog2()
}
