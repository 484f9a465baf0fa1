//! Which part of the scores a block computes: a head, a tile of queries, a tile of keys, and what the mask leaves of it.

use super::{Lowering, TILE, VARS};
use crate::emit::{
    builder::{Compare, Loop, Value},
    point::Point,
};

/// Positions `first..first + TILE` of a head, of which those below `limit` exist.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub first: Value,
    pub limit: u64,
}

/// A head of queries, and the head of keys that it reads.
pub(super) struct Heads {
    pub queries: Point,
    pub keys: Point,
}

impl Heads {
    fn new(batch: Value, head: Value, key_head: Value) -> Heads {
        Heads { queries: head_of(batch, head), keys: head_of(batch, key_head) }
    }
}

fn head_of(batch: Value, head: Value) -> Point {
    Point::new(VARS, 1).at(0, batch).at(1, head)
}

/// A head of keys, by its batch and number.
#[derive(Clone, Copy)]
pub(super) struct KeyHead {
    batch: Value,
    head: Value,
}

impl KeyHead {
    pub fn point(self) -> Point {
        head_of(self.batch, self.head)
    }
}

impl Lowering<'_> {
    fn tile(&mut self, number: Value, limit: u64) -> Rows {
        Rows { first: self.e.b.times(number, TILE), limit }
    }

    /// The tile of queries with this number, of all heads.
    pub(super) fn query_tile(&mut self, number: Value) -> (Heads, Rows) {
        let shape = self.shape;
        let (tile, rest) = self.e.b.split(number, shape.queries.div_ceil(TILE));
        let (head, batch) = self.e.b.split(rest, shape.heads);
        let (_, key_head) = self.e.b.split(head, shape.heads / shape.kv_heads);
        (Heads::new(batch, head, key_head), self.tile(tile, shape.queries))
    }

    /// The tile of keys with this number, of all heads.
    pub(super) fn key_tile(&mut self, number: Value) -> (KeyHead, Rows) {
        let shape = self.shape;
        let (tile, rest) = self.e.b.split(number, shape.keys.div_ceil(TILE));
        let (head, batch) = self.e.b.split(rest, shape.kv_heads);
        (KeyHead { batch, head }, self.tile(tile, shape.keys))
    }

    /// Opens a loop over the heads of queries that read a head of keys.
    pub(super) fn begin_heads(&mut self, keys: KeyHead, carried: &[Value]) -> (Loop, Heads) {
        let per_group = self.shape.heads / self.shape.kv_heads;
        let open = self.e.b.begin_count(per_group, carried);
        let first = self.e.b.times(keys.head, per_group);
        let head = self.e.b.add(first, open.counter);
        (open, Heads::new(keys.batch, head, keys.head))
    }

    /// Opens a loop over tiles `low..high` of `limit` positions.
    pub(super) fn begin_tiles(&mut self, (low, high): (Value, Value), limit: u64, carried: &[Value]) -> (Loop, Rows) {
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), carried);
        let rows = self.tile(open.counter, limit);
        (open, rows)
    }

    /// First and last + 1 of the tiles of keys that a tile of queries sees.
    pub(super) fn key_tiles(&mut self, first_query: Value) -> (Value, Value) {
        let shape = self.shape;
        let all = self.e.b.i64(shape.keys.div_ceil(TILE) as i64);
        let (_, tile) = self.e.b.split(first_query, TILE);
        let after = self.e.b.plus(tile, 1);
        let high = if shape.causal { self.e.b.min_signed(all, after) } else { all };
        let low = match shape.window {
            None => self.e.b.i64(0),
            Some(window) => {
                let reach = self.e.b.i64(window.min(1 << 40) as i64 - 1);
                let key = self.e.b.sub(first_query, reach);
                let zero = self.e.b.i64(0);
                let key = self.e.b.max_signed(key, zero);
                self.e.b.split(key, TILE).1
            }
        };
        (low, high)
    }

    /// First and last + 1 of the tiles of queries that see a tile of keys.
    pub(super) fn query_tiles(&mut self, first_key: Value) -> (Value, Value) {
        let shape = self.shape;
        let all = self.e.b.i64(shape.queries.div_ceil(TILE) as i64);
        let (_, tile) = self.e.b.split(first_key, TILE);
        let low = if shape.causal { tile } else { self.e.b.i64(0) };
        let high = match shape.window {
            None => all,
            Some(window) => {
                let last = self.e.b.plus(first_key, TILE - 1 + window.min(1 << 40));
                let (_, tiles) = self.e.b.split(last, TILE);
                let tiles = self.e.b.plus(tiles, 1);
                self.e.b.min_signed(all, tiles)
            }
        };
        (low, high)
    }

    /// Whether query and key see each other: both exist, and the mask lets them.
    pub(super) fn visible(&mut self, query: Value, key: Value) -> Option<Value> {
        let shape = self.shape;
        let mut conditions = Vec::new();
        if !shape.keys.is_multiple_of(TILE) {
            let limit = self.e.b.i64(shape.keys as i64);
            conditions.push(self.e.b.compare(Compare::Less, key, limit));
        }
        if !shape.queries.is_multiple_of(TILE) {
            let limit = self.e.b.i64(shape.queries as i64);
            conditions.push(self.e.b.compare(Compare::Less, query, limit));
        }
        if shape.causal {
            conditions.push(self.e.b.compare(Compare::LessEqual, key, query));
        }
        if let Some(window) = shape.window {
            let window = self.e.b.i64(window.min(1 << 40) as i64);
            let distance = self.e.b.sub(query, key);
            conditions.push(self.e.b.compare(Compare::Less, distance, window));
        }
        conditions.into_iter().reduce(|a, b| self.e.b.and(a, b))
    }
}
