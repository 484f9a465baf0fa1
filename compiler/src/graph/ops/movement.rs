//! Operations that place elements elsewhere.

use super::{
    Call, Doc, Rule, axes_of, exactly, expect_ascending, expect_float, expect_integer, extent, refuse, with_extent,
};
use crate::graph::{
    InterpretError, NodeId, Op, ShapeError, Tensor, TensorType,
    interpret::Moment,
    value::{offsets, strides},
};

pub(super) struct Broadcast {
    pub axes: Vec<usize>,
    pub shape: Vec<u64>,
}

impl Broadcast {
    pub const DOC: Doc = Doc {
        name: "Broadcast",
        operands: "x",
        result: "`shape`",
        meaning: "copies along new axes; axis i of x becomes axis `axes[i]`",
        gradient: "g summed over the new axes",
    };
}

impl Rule for Broadcast {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("broadcast", operands)?;
        expect_ascending("broadcast", &self.axes, self.shape.len())?;
        let placed: Vec<u64> = self.axes.iter().map(|&axis| self.shape[axis]).collect();
        if placed != x.shape {
            return refuse(format!("broadcast of {x} to axes {:?} of shape {:?}", self.axes, self.shape));
        }
        Ok(TensorType { dtype: x.dtype, shape: self.shape.clone() })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let mut along = vec![0; self.shape.len()];
        for (&axis, stride) in self.axes.iter().zip(operands[0].strides()) {
            along[axis] = stride;
        }
        Ok(operands[0].pick(&self.shape, offsets(&self.shape, &along).into_iter()))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let new: Vec<usize> = (0..self.shape.len()).filter(|axis| !self.axes.contains(axis)).collect();
        Some(call.graph.total(call.seed, &new))
    }
}

pub(super) struct Reshape {
    pub shape: Vec<u64>,
}

impl Reshape {
    pub const DOC: Doc = Doc {
        name: "Reshape",
        operands: "x",
        result: "`shape`",
        meaning: "the same elements in row-major order",
        gradient: "g in x's shape",
    };
}

impl Rule for Reshape {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("reshape", operands)?;
        let ty = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        ty.check()?;
        if ty.elements() != x.elements() {
            return refuse(format!("reshape of {x} ({} elements) to {:?} ({})", x.elements(), ty.shape, ty.elements()));
        }
        Ok(ty)
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(operands[0].pick(&self.shape, 0..operands[0].data.len()))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let shape = call.ty(0).shape;
        Some(call.graph.reshape(call.seed, &shape))
    }
}

pub(super) struct Permute {
    pub axes: Vec<usize>,
}

impl Permute {
    pub const DOC: Doc = Doc {
        name: "Permute",
        operands: "x",
        result: "x's axes in another order",
        meaning: "axis i of the result is axis `axes[i]` of x",
        gradient: "g with the axes put back",
    };
}

impl Rule for Permute {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("permute", operands)?;
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().ne(0..x.rank()) {
            return refuse(format!("{:?} is not an order of the {} of {x}", self.axes, axes_of(x)));
        }
        Ok(TensorType { dtype: x.dtype, shape: self.axes.iter().map(|&axis| x.shape[axis]).collect() })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let (strides, extents) = (operands[0].strides(), operands[0].shape());
        let shape: Vec<u64> = self.axes.iter().map(|&axis| extents[axis]).collect();
        let along: Vec<u64> = self.axes.iter().map(|&axis| strides[axis]).collect();
        Ok(operands[0].pick(&shape, offsets(&shape, &along).into_iter()))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let mut inverse = vec![0; self.axes.len()];
        for (result, &operand) in self.axes.iter().enumerate() {
            inverse[operand] = result;
        }
        Some(call.graph.permute(call.seed, &inverse))
    }
}

pub(super) struct Slice {
    pub axis: usize,
    pub start: u64,
    pub length: u64,
}

impl Slice {
    pub const DOC: Doc = Doc {
        name: "Slice",
        operands: "x",
        result: "x with extent `length` along `axis`",
        meaning: "elements `start`, `start + 1`, ... along `axis`",
        gradient: "g between zeros",
    };
}

impl Rule for Slice {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("slice", operands)?;
        let available = extent("slice", x, self.axis)?;
        match self.start.checked_add(self.length) {
            Some(end) if end <= available => Ok(with_extent(x, self.axis, self.length)),
            _ => refuse(format!(
                "slice of {} from {} along axis {} of {x}, which has {available}",
                self.length, self.start, self.axis
            )),
        }
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let x = operands[0];
        let (strides, shape) = (x.strides(), with_extent(&x.ty, self.axis, self.length).shape);
        let start = (self.start * strides[self.axis]) as usize;
        Ok(x.pick(&shape, offsets(&shape, &strides).into_iter().map(|offset| start + offset)))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let after = call.ty(0).shape[self.axis] - self.start - self.length;
        Some(call.graph.add(Op::Pad { axis: self.axis, before: self.start, after }, &[call.seed]))
    }
}

pub(super) struct Pad {
    pub axis: usize,
    pub before: u64,
    pub after: u64,
}

impl Pad {
    pub const DOC: Doc = Doc {
        name: "Pad",
        operands: "x",
        result: "x with `before + after` more along `axis`",
        meaning: "zeros before and after",
        gradient: "the slice of g where x is",
    };
}

impl Rule for Pad {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("pad", operands)?;
        let inner = extent("pad", x, self.axis)?;
        match inner.checked_add(self.before).and_then(|sum| sum.checked_add(self.after)) {
            Some(extent) => Ok(with_extent(x, self.axis, extent)),
            None => refuse(format!("pad of {x} by {} and {} is too large", self.before, self.after)),
        }
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let x = operands[0];
        let extent = self.before + x.shape()[self.axis] + self.after;
        let mut y = Tensor::full(with_extent(&x.ty, self.axis, extent), 0.0);
        place(&mut y, x, self.axis, self.before);
        Ok(y)
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let length = call.ty(0).shape[self.axis];
        Some(call.graph.slice(call.seed, self.axis, self.before, length))
    }
}

pub(super) struct Concat {
    pub axis: usize,
}

impl Concat {
    pub const DOC: Doc = Doc {
        name: "Concat",
        operands: "x, y, ...: one type but for `axis`",
        result: "extents along `axis` added",
        meaning: "the operands one after the other along `axis`",
        gradient: "to each operand its slice of g",
    };
}

impl Rule for Concat {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let Some((&first, rest)) = operands.split_first() else { return refuse("concat of nothing") };
        let mut total = extent("concat", first, self.axis)?;
        for other in rest {
            let along = extent("concat", other, self.axis)?;
            if with_extent(first, self.axis, along) != **other {
                return refuse(format!("concat along axis {} of {first} and {other}", self.axis));
            }
            total = total.saturating_add(along);
        }
        Ok(with_extent(first, self.axis, total))
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let total = operands.iter().map(|x| x.shape()[self.axis]).sum();
        let mut y = Tensor::full(with_extent(&operands[0].ty, self.axis, total), 0.0);
        let mut start = 0;
        for x in operands {
            place(&mut y, x, self.axis, start);
            start += x.shape()[self.axis];
        }
        Ok(y)
    }

    fn gradient(&self, call: &mut Call, operand: usize) -> Option<NodeId> {
        let start = (0..operand).map(|before| call.ty(before).shape[self.axis]).sum();
        let length = call.ty(operand).shape[self.axis];
        Some(call.graph.slice(call.seed, self.axis, start, length))
    }
}

pub(super) struct Window {
    pub axis: usize,
    pub size: u64,
    pub stride: u64,
}

impl Window {
    pub const DOC: Doc = Doc {
        name: "Window",
        operands: "x, extent n along `axis`",
        result: "axes (m, `size`) for `axis`, m = (n - `size`) / `stride` + 1",
        meaning: "`y[.., i, p, ..] = x[.., i * stride + p, ..]`",
        gradient: "Unwindow of g",
    };
}

impl Rule for Window {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("window", operands)?;
        let available = extent("window", x, self.axis)?;
        if self.size == 0 || self.stride == 0 || self.size > available {
            let (size, stride) = (self.size, self.stride);
            return refuse(format!(
                "windows of {size} every {stride} along axis {} of {x}, extent {available}",
                self.axis
            ));
        }
        let mut shape = x.shape.clone();
        shape.splice(self.axis..=self.axis, [(available - self.size) / self.stride + 1, self.size]);
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let shape = self.infer(&[&operands[0].ty]).map_err(|error| InterpretError(error.0))?.shape;
        let strides = window_strides(operands[0].shape(), self.axis, self.stride);
        Ok(operands[0].pick(&shape, offsets(&shape, &strides).into_iter()))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let extent = call.ty(0).shape[self.axis];
        Some(call.graph.add(Op::Unwindow { axis: self.axis, stride: self.stride, extent }, &[call.seed]))
    }
}

pub(super) struct Unwindow {
    pub axis: usize,
    pub stride: u64,
    pub extent: u64,
}

impl Unwindow {
    pub const DOC: Doc = Doc {
        name: "Unwindow",
        operands: "x: f32, extents (m, size) from `axis`; m = (`extent` - size) / `stride` + 1",
        result: "`extent` for the two axes",
        meaning: "`y[.., i * stride + p, ..]` is the sum of `x[.., i, p, ..]`, i ascending; 0 where there is none",
        gradient: "Window of g",
    };
}

impl Rule for Unwindow {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("unwindow", operands)?;
        expect_float("unwindow", x)?;
        let count = extent("unwindow", x, self.axis)?;
        let size = extent("unwindow", x, self.axis.saturating_add(1))?;
        let fits = self.stride > 0 && size <= self.extent && (self.extent - size) / self.stride + 1 == count;
        if !fits {
            return refuse(format!(
                "{count} windows of {size} every {} do not come from an extent of {}",
                self.stride, self.extent
            ));
        }
        let mut shape = x.shape.clone();
        shape.splice(self.axis..=self.axis + 1, [self.extent]);
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let x = operands[0];
        let mut shape = x.shape().to_vec();
        shape.splice(self.axis..=self.axis + 1, [self.extent]);
        let strides = window_strides(&shape, self.axis, self.stride);
        let mut y = Tensor::full(TensorType::f32(shape), 0.0);
        for (offset, value) in offsets(x.shape(), &strides).into_iter().zip(&x.data) {
            y.data[offset] += value;
        }
        Ok(y)
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let size = call.ty(0).shape[self.axis + 1];
        Some(call.graph.add(Op::Window { axis: self.axis, size, stride: self.stride }, &[call.seed]))
    }
}

pub(super) struct Gather;

impl Gather {
    pub const DOC: Doc = Doc {
        name: "Gather",
        operands: "table `[v, ...r]`, ids: i32 `[...a]`",
        result: "`[...a, ...r]`",
        meaning: "row `ids[...a]` of the table; an id outside `0..v` is an error of the caller",
        gradient: "to the table Scatter of g",
    };
}

impl Rule for Gather {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [table, ids] = exactly("gather", operands)?;
        extent("gather", table, 0)?;
        expect_integer("gather", ids)?;
        let shape = ids.shape.iter().chain(&table.shape[1..]).copied().collect();
        Ok(TensorType { dtype: table.dtype, shape })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let [table, ids] = [operands[0], operands[1]];
        let width = table.strides()[0] as usize;
        let mut data = Vec::with_capacity(ids.data.len() * width);
        for &id in &ids.data {
            let row = row_of(id, table.shape()[0])?;
            data.extend_from_slice(&table.data[row * width..][..width]);
        }
        let shape = [ids.shape(), &table.shape()[1..]].concat();
        Ok(Tensor::new(TensorType { dtype: table.ty.dtype, shape }, data))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let rows = call.ty(0).shape[0];
        Some(call.graph.add(Op::Scatter { rows }, &[call.operands[1], call.seed]))
    }
}

pub(super) struct Scatter {
    pub rows: u64,
}

impl Scatter {
    pub const DOC: Doc = Doc {
        name: "Scatter",
        operands: "ids: i32 `[...a]`, updates: f32 `[...a, ...r]`",
        result: "`[rows, ...r]`",
        meaning: "the sum, in row-major order of ids, of the updates of each row; 0 where there is none",
        gradient: "to the updates Gather of g",
    };
}

impl Rule for Scatter {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [ids, updates] = exactly("scatter", operands)?;
        expect_integer("scatter", ids)?;
        expect_float("scatter", updates)?;
        let Some(row) = updates.shape.strip_prefix(ids.shape.as_slice()) else {
            return refuse(format!(
                "scatter of {updates} by {ids}: the updates' shape must begin with that of the ids"
            ));
        };
        Ok(TensorType::f32([&[self.rows], row].concat()))
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let [ids, updates] = [operands[0], operands[1]];
        let row_shape = &updates.shape()[ids.shape().len()..];
        let mut y = Tensor::full(TensorType::f32([&[self.rows], row_shape].concat()), 0.0);
        let width = y.strides()[0] as usize;
        for (&id, update) in ids.data.iter().zip(updates.data.chunks(width)) {
            let row = row_of(id, self.rows)?;
            y.data[row * width..][..width].iter_mut().zip(update).for_each(|(sum, value)| *sum += value);
        }
        Ok(y)
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        Some(call.graph.add(Op::Gather, &[call.seed, call.operands[0]]))
    }
}

/// Writes x into y from `start` on along an axis.
fn place(y: &mut Tensor, x: &Tensor, axis: usize, start: u64) {
    let strides = y.strides();
    let first = (start * strides[axis]) as usize;
    for (offset, &value) in offsets(x.shape(), &strides).into_iter().zip(&x.data) {
        y.data[first + offset] = value;
    }
}

/// Strides of the windows' view of an array: along `axis` from window to window, then within one.
fn window_strides(shape: &[u64], axis: usize, stride: u64) -> Vec<u64> {
    let mut along = strides(shape);
    along.insert(axis, along[axis] * stride);
    along
}

fn row_of(id: f64, rows: u64) -> Result<usize, InterpretError> {
    if id >= 0.0 && id < rows as f64 {
        return Ok(id as usize);
    }
    Err(InterpretError(format!("id {id} in a table of {rows} rows")))
}
