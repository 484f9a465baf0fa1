//! The blocking of a product: which side is cut, what is packed where, and how large each block is.

use super::{
    Direct,
    units::{Side, UnitCost},
};
use crate::{
    caches::Caches,
    ir::{DType, Expr, ExprId, Gemm, Index, Kernel, Precision},
    micro::{Machine, Step, Tile},
    stage::tile_count,
};

/// Depth of a block: a panel of the right factor this deep fills a 32 KiB first-level cache, or half of it where a tile has 16
/// columns. The only block that changes bits: it depends on nothing.
const DEPTH_BLOCK: u64 = 256;
/// Rows, and floats of the right factor, from which a product is cut into units that share a factor. What is shared lies in
/// the arena, which all variants of an artifact have in common: this depends on the product alone.
const ROWS_CUT: u64 = 120;
const RIGHT_CUT: u64 = 48 * 1024;
/// Rows that sums are kept for where columns are cut.
const TALL_BLOCK: u64 = 1080;
/// Units aimed at, so that a static split balances.
const UNITS_WANTED: u64 = 32;
/// Tiles of rows that a unit takes at least.
const FEWEST_TILES: u64 = 4;
/// What a unit of rows pays for reading the right factor again, and one of columns for the left: measured on Zen 4.
const COST_OF_ROWS: UnitCost = UnitCost(2);
const COST_OF_COLUMNS: UnitCost = UnitCost(4);
/// Multiply-adds below which a tile is not worth its own launch.
const WORK_PER_TILE: u64 = 128 * 1024;
/// Elements below which a packing tile is not worth its own launch.
const PACK_PER_TILE: u64 = 16 * 1024;

/// Panels, or tiles of rows, that are packed together.
pub(super) const GROUP: u64 = 4;
/// Rows of the left factor this many bytes apart fall into one set of a 32 KiB, 8-way first-level cache.
const SAME_SET: u64 = 4096;

/// Where a factor is read by the microkernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its buffer.
    Direct,
    /// Packed by the unit, for itself.
    Scratch,
    /// Packed by an earlier stage, for all units.
    Workspace,
}

/// The shape of a packed left factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftLayout {
    /// Row-major; packed along the contraction.
    Rows,
    /// Row-major; packed element by element, where vectors would cross dims.
    RowsScalar,
    /// Panels of a tile's rows, `panel[k][row]`; packed along the rows.
    Panels,
}

/// How vectors run while the right factor is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RightScan {
    /// Along the columns.
    Columns,
    /// Along the contraction, transposing in registers.
    Depth,
}

/// The factors that a stage of their own packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    Left,
    Right,
}

/// The blocking of one product.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub tile: Tile,
    pub batch: u64,
    pub rows: u64,
    /// Panels of a tile's columns; each holds columns of one place of the outer column dims.
    pub panels: u64,
    /// What the microkernel multiplies at once; all depths count such steps.
    pub step: Step,
    pub depth: u64,
    last_columns: u64,
    pub rows_per_unit: u64,
    pub panels_per_unit: u64,
    /// Rows whose sums are kept in scratch at once.
    pub rows_per_sums: u64,
    pub rows_per_block: u64,
    pub panels_per_block: u64,
    pub depth_per_block: u64,
    pub left_place: Place,
    pub left_layout: LeftLayout,
    pub right_place: Place,
    pub right_scan: RightScan,
    pub direct: Option<Direct>,
}

impl Plan {
    pub fn new(kernel: &Kernel, gemm: &Gemm, machine: Machine) -> Plan {
        let (lanes, step) = (machine.lanes, machine.step(gemm.precision));
        let tile = Tile::new(lanes);
        let product = |dims: &[u64]| dims.iter().product::<u64>();
        let (batch, rows, depth) = (product(&gemm.batch), product(&gemm.m), product(&gemm.k).div_ceil(step.elements()));
        let last_columns = gemm.n.last().copied().unwrap_or(1);
        let panels = product(&gemm.n) / last_columns * last_columns.div_ceil(tile.columns());
        let depth_blocks = depth.div_ceil(DEPTH_BLOCK);
        let direct = direct(kernel, gemm);
        let mut plan = Plan {
            tile,
            batch,
            rows,
            panels,
            step,
            depth,
            last_columns,
            rows_per_unit: rows,
            panels_per_unit: panels,
            rows_per_sums: rows,
            rows_per_block: rows,
            panels_per_block: panels,
            depth_per_block: depth.div_ceil(depth_blocks).next_multiple_of(u64::from(lanes)).min(depth),
            left_place: Place::Scratch,
            left_layout: left_layout(gemm, lanes),
            right_place: Place::Scratch,
            right_scan: right_scan(gemm, lanes),
            direct,
        };
        plan.cut(machine.caches);
        if plan.direct.is_some() {
            plan.left_place = Place::Direct;
        }
        plan
    }

    /// Cuts the longer side into units, chooses the places of the factors, and sizes the blocks of a unit.
    fn cut(&mut self, caches: Caches) {
        let columns = self.panels * self.tile.columns();
        let small_right = columns * self.depth_per_block <= RIGHT_CUT;
        let blocks = Blocks::new(caches, self.tile, self.depth_per_block);
        if self.batch >= 16 && small_right && self.rows <= TALL_BLOCK {
            // Each batch entry is a unit.
        } else if self.rows >= columns {
            self.cut_rows(&blocks);
        } else {
            self.cut_columns(&blocks);
        }
        self.rows_per_sums = self.rows_per_unit.min(TALL_BLOCK);
        self.rows_per_block = evenly(self.rows_per_sums, blocks.rows).next_multiple_of(self.tile.rows).min(self.rows);
        let most = match (self.right_place, self.corrects_sums()) {
            (Place::Workspace, false) => blocks.summed_panels,
            (Place::Workspace, true) => (blocks.summed_panels / 2).max(1),
            _ => blocks.packed_panels,
        };
        self.panels_per_block = evenly(self.panels_per_unit, most);
    }

    fn cut_rows(&mut self, blocks: &Blocks) {
        let least = FEWEST_TILES * self.tile.rows;
        let wanted = self.rows.div_ceil(UNITS_WANTED.div_ceil(self.batch)).clamp(least, ROWS_CUT);
        if wanted < self.rows {
            let side = Side { pieces: self.row_tiles(), batch: self.batch, cost: COST_OF_ROWS };
            let most = (blocks.rows / self.tile.rows).max(FEWEST_TILES);
            self.rows_per_unit = (side.unit(FEWEST_TILES..=most) * self.tile.rows).min(self.rows);
            self.right_place = Place::Workspace;
        }
    }

    fn cut_columns(&mut self, blocks: &Blocks) {
        let side = Side { pieces: self.panels, batch: self.batch, cost: COST_OF_COLUMNS };
        let whole = (RIGHT_CUT / (self.depth_per_block * self.tile.columns())).max(1);
        let wanted = self.panels.div_ceil(UNITS_WANTED.div_ceil(self.batch)).min(whole);
        if wanted < self.panels {
            self.panels_per_unit = side.unit(1..=blocks.packed_panels.min(self.panels));
            self.left_place = Place::Workspace;
        }
    }

    pub fn row_blocks(&self) -> u64 {
        self.rows.div_ceil(self.rows_per_unit)
    }

    pub fn column_blocks(&self) -> u64 {
        self.panels.div_ceil(self.panels_per_unit)
    }

    pub fn units(&self) -> u64 {
        self.batch * self.row_blocks() * self.column_blocks()
    }

    pub fn tiles(&self) -> u64 {
        let work = self.batch * self.rows * self.panels * self.tile.columns() * self.depth;
        tile_count(self.units(), work, WORK_PER_TILE)
    }

    /// The factors that need a stage of their own, in order.
    pub fn shared(&self) -> Vec<Shared> {
        let right = (self.right_place == Place::Workspace).then_some(Shared::Right);
        let left = (self.left_place == Place::Workspace).then_some(Shared::Left);
        right.into_iter().chain(left).collect()
    }

    /// Units of a packing stage: groups of panels, or of tiles of rows.
    pub fn pack_units(&self, shared: Shared) -> u64 {
        match shared {
            Shared::Right => self.batch * self.panel_groups(),
            Shared::Left => self.batch * self.row_groups(),
        }
    }

    pub fn panel_groups(&self) -> u64 {
        self.panels.div_ceil(GROUP)
    }

    pub fn row_groups(&self) -> u64 {
        self.row_tiles().div_ceil(GROUP)
    }

    pub fn pack_tiles(&self, shared: Shared) -> u64 {
        let elements = match shared {
            Shared::Right => self.batch * self.panels * self.tile.columns() * self.depth,
            Shared::Left => self.batch * self.rows * self.depth,
        };
        tile_count(self.pack_units(shared), elements, PACK_PER_TILE)
    }

    fn row_tiles(&self) -> u64 {
        self.rows.div_ceil(self.tile.rows)
    }

    /// Elements between steps of row and contraction in a packed left factor whose contraction is `depth` long.
    pub fn left_strides(&self, depth: u64) -> [u64; 2] {
        match self.left_layout {
            LeftLayout::Panels => [1, self.tile.rows],
            LeftLayout::Rows | LeftLayout::RowsScalar => [depth, 1],
        }
    }

    pub fn padded_depth_block(&self) -> u64 {
        self.depth_per_block.next_multiple_of(self.tile.lanes.into())
    }

    /// Rows of the left factor in the workspace, those that pad the last tile included.
    pub fn padded_rows(&self) -> u64 {
        self.rows.next_multiple_of(self.tile.rows)
    }

    /// Elements of the left factor of one batch entry in the workspace.
    pub fn left_elements(&self) -> u64 {
        self.padded_rows() * self.padded_depth_block() * self.depth.div_ceil(self.depth_per_block)
    }

    /// Where the left factor starts in the workspace, in f32 elements.
    pub fn left_workspace_offset(&self) -> u64 {
        match self.right_place {
            Place::Workspace => self.batch * self.panels * self.tile.columns() * self.depth,
            _ => 0,
        }
    }

    pub fn workspace_bytes(&self) -> u64 {
        let left = if self.left_place == Place::Workspace { self.batch * self.left_elements() } else { 0 };
        4 * (self.left_workspace_offset() + left)
    }

    /// Panels along the last column dim.
    pub fn panels_per_row(&self) -> u64 {
        self.last_columns.div_ceil(self.tile.columns())
    }

    /// Columns of the last panel along the last column dim.
    pub fn last_width(&self) -> u32 {
        (self.last_columns - (self.panels_per_row() - 1) * self.tile.columns()) as u32
    }
}

/// How much a second-level cache holds while a unit runs (after Low et al., "Analytical modeling is enough for high-performance
/// BLIS", 2016, section 4): a block of the left factor that panels of the right one pass by, and sums or panels that stay.
struct Blocks {
    /// Rows of the left factor: an eighth of the cache.
    rows: u64,
    /// Panels whose sums for these rows are kept: half of it.
    summed_panels: u64,
    /// Panels of the right factor that a unit packs for itself: three sixteenths.
    packed_panels: u64,
}

impl Blocks {
    fn new(caches: Caches, tile: Tile, depth: u64) -> Blocks {
        let floats = caches.second() / 4;
        let rows = (floats / 8 / DEPTH_BLOCK / tile.rows).max(1) * tile.rows;
        Blocks {
            rows,
            summed_panels: (floats / 2 / (rows * tile.columns())).max(1),
            packed_panels: (3 * floats / 16 / (depth * tile.columns())).max(1),
        }
    }
}

/// Blocks of at most `most`, as equal as they can be: a short last one would read its other factor for little.
fn evenly(length: u64, most: u64) -> u64 {
    length.div_ceil(length.div_ceil(most))
}

/// The left factor, if it is an f32 array that the microkernel can walk: rows far apart, the contraction contiguous.
fn direct(kernel: &Kernel, gemm: &Gemm) -> Option<Direct> {
    let Expr::Load { buffer, index, guard: None } = gemm.exprs.get(gemm.lhs) else { return None };
    let is_float = kernel.buffers[*buffer as usize].dtype == DType::F32;
    let first = gemm.batch.len() as u32;
    let depth = first + (gemm.m.len() + gemm.n.len()) as u32;
    let stride = |dims: &[u64], var: u32| if dims.is_empty() { Some(0) } else { index.stride_of(var, &gemm.exprs) };
    let strides = [stride(&gemm.m, first)?, stride(&gemm.k, depth)?];
    let spreads = strides[0] == 0 || !(strides[0] as u64 * 4).is_multiple_of(SAME_SET);
    let walks = spreads && gemm.m.len() <= 1 && gemm.k.len() <= 1 && strides[0] >= 0 && (0..=1).contains(&strides[1]);
    (is_float && gemm.precision == Precision::F32 && walks).then(|| Direct {
        buffer: *buffer,
        index: index.clone(),
        strides: strides.map(|stride| stride as u64),
    })
}

/// Loads of a factor that are not contiguous along `var`.
fn scattered(gemm: &Gemm, root: ExprId, var: u32) -> usize {
    let apart = |index: &Index| !matches!(index.stride_of(var, &gemm.exprs), Some(0 | 1));
    let loads = gemm.exprs.reachable(&[root]).into_iter().filter_map(|id| match gemm.exprs.get(id) {
        Expr::Load { index, .. } => Some(index),
        _ => None,
    });
    loads.filter(|index| apart(index)).count()
}

/// Whether vectors along the last of these dims never cross into the dim before.
fn aligned(dims: &[u64], width: u64) -> bool {
    dims.len() == 1 || dims.last().is_some_and(|last| last.is_multiple_of(width))
}

fn left_layout(gemm: &Gemm, lanes: u32) -> LeftLayout {
    let last_row = (gemm.batch.len() + gemm.m.len()) as u32;
    let last_depth = last_row + (gemm.n.len() + gemm.k.len()) as u32;
    let along_depth = aligned(&gemm.k, lanes.into());
    let along_rows = aligned(&gemm.m, Tile::new(lanes).rows);
    let apart = |var: u32| scattered(gemm, gemm.lhs, var);
    match (along_rows, along_depth) {
        (true, true) if apart(last_row - 1) < apart(last_depth - 1) => LeftLayout::Panels,
        (_, true) => LeftLayout::Rows,
        (true, false) => LeftLayout::Panels,
        (false, false) => LeftLayout::RowsScalar,
    }
}

fn right_scan(gemm: &Gemm, lanes: u32) -> RightScan {
    let last_column = (gemm.batch.len() + gemm.m.len() + gemm.n.len()) as u32;
    let last_depth = last_column + gemm.k.len() as u32;
    if gemm.n.is_empty() {
        return RightScan::Columns;
    }
    let apart = |var: u32| scattered(gemm, gemm.rhs, var);
    match aligned(&gemm.k, lanes.into()) && apart(last_depth - 1) < apart(last_column - 1) {
        true => RightScan::Depth,
        false => RightScan::Columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Access, Body, Buffer, Exprs, Store};

    fn product([m, n, k]: [u64; 3]) -> (Kernel, Gemm) {
        let mut exprs = Exprs::default();
        let lhs = exprs.load(0, Index::linear([(0, 1), (2, m as i64)]));
        let rhs = exprs.load(1, Index::linear([(2, n as i64), (1, 1)]));
        let value = exprs.add(Expr::Accumulator(0));
        let stores = vec![Store { buffer: 2, index: Index::linear([(0, n as i64), (1, 1)]), value, accumulate: false }];
        let buffer = |elements, access| Buffer { dtype: DType::F32, elements, access };
        let buffers = vec![buffer(m * k, Access::Read), buffer(k * n, Access::Read), buffer(m * n, Access::Write)];
        let precision = Precision::Bf16;
        let gemm = Gemm { batch: vec![], m: vec![m], n: vec![n], k: vec![k], exprs, lhs, rhs, precision, stores };
        (Kernel { label: String::new(), buffers, body: Body::Gemm(gemm.clone()) }, gemm)
    }

    /// The arena is planned before anybody knows the caches, and sums are split where they always are.
    #[test]
    fn caches_decide_neither_workspace_nor_depth() {
        let sizes = [[40, 30, 20], [100, 90, 600], [126, 64, 9], [4096, 384, 1536], [384, 1152, 4096], [96, 7000, 50]];
        for (kernel, gemm) in sizes.map(product) {
            for machine in Machine::ALL {
                let decided = |caches: Caches| {
                    let plan = Plan::new(&kernel, &gemm, Machine { caches, ..machine });
                    (plan.workspace_bytes(), plan.depth_per_block, plan.left_place, plan.right_place)
                };
                let others = [0, 1 << 18, 1 << 21, u64::MAX].map(|second| decided(Caches::new(second)));
                assert_eq!(others, [decided(Caches::PORTABLE); 4]);
            }
        }
    }
}
