//! What a unit of a product keeps in scratch, in this order: sums that wait for later blocks of the contraction, or of one tile;
//! their errors and the terms that are added next, where blocks are many; the packed factors that are the unit's own.

use super::plan::{Place, Plan};
use crate::emit::sum::CHAIN;

/// Blocks whose sums are added to each other as they are: the errors of these additions are a fraction of a block's own.
/// Sums of more blocks are added with their errors.
const PLAIN_BLOCKS: u64 = CHAIN / 2;

impl Plan {
    /// Whether sums wait in scratch for later blocks of the contraction.
    pub fn keeps_sums(&self) -> bool {
        self.depth_per_block < self.depth
    }

    /// Whether errors wait beside the sums.
    pub fn corrects_sums(&self) -> bool {
        self.depth.div_ceil(self.depth_per_block) > PLAIN_BLOCKS
    }

    fn sums_elements(&self) -> u64 {
        match self.keeps_sums() {
            true => self.rows_per_sums.next_multiple_of(self.tile.rows) * self.panels_per_block * self.tile.columns(),
            false => self.tile_elements(),
        }
    }

    fn tile_elements(&self) -> u64 {
        self.tile.rows * self.tile.columns()
    }

    /// Where the errors of the sums start in scratch, if there are any, in f32 elements.
    pub fn errors_offset(&self) -> u64 {
        self.sums_elements()
    }

    /// Where the sums of one block of the contraction lie in scratch before they are added, in f32 elements.
    pub fn terms_offset(&self) -> u64 {
        2 * self.sums_elements()
    }

    /// Where the packed left factor starts in scratch, in f32 elements.
    pub fn left_offset(&self) -> u64 {
        if self.corrects_sums() { self.terms_offset() + self.tile_elements() } else { self.sums_elements() }
    }

    fn left_block_elements(&self) -> u64 {
        let rows = self.rows_per_block.next_multiple_of(self.tile.rows);
        if self.left_place == Place::Scratch { rows * self.padded_depth_block() } else { 0 }
    }

    /// Where the packed right factor starts in scratch, in f32 elements.
    pub fn right_offset(&self) -> u64 {
        (self.left_offset() + self.left_block_elements()).next_multiple_of(16)
    }

    pub fn scratch_bytes(&self) -> u64 {
        let right = match self.right_place {
            Place::Scratch => self.panels_per_block * self.tile.columns() * self.depth_per_block,
            _ => 0,
        };
        4 * (self.right_offset() + right)
    }
}
