//! The private gradient of a step, and the entry that sums up what does not fit a step's physical batch.

use super::{
    super::{
        evaluator::{Checked, Evaluator},
        filter::Point,
    },
    Private, Sampling,
};
use crate::{
    graph::{NodeId, Op, Output, TensorType},
    program::{Input, InputKind, State},
};
use trainc_runtime::artifact::{DType, Init, PrivateSpec};

impl Private {
    /// Rows of the physical batch for this many samples expected in a step. A step that draws more runs in several
    /// passes; a quarter of the expected number wastes an eighth of the rows, on average, on padding, and a quarter of
    /// the memory is enough. Small batches are not worth cutting.
    pub(in crate::check) fn physical_rows(&self, batch: u64) -> u64 {
        const SMALL: u64 = 32;
        let drawn = self.sampling == Sampling::Poisson;
        self.rows.map_or(if drawn && batch > SMALL { batch.div_ceil(4) } else { batch }, |(rows, _)| rows)
    }

    /// Whether a step may take several passes.
    pub(in crate::check) fn accumulates(&self) -> bool {
        self.sampling == Sampling::Poisson
    }
}

impl Evaluator<'_> {
    /// The private gradient of each trainable parameter, by index; and which rows are bad.
    #[expect(clippy::type_complexity, reason = "gradients as they are everywhere, with the rows")]
    pub(in crate::check) fn private_gradients(
        &mut self,
        loss: NodeId,
        private: &Private,
        guarantee: &PrivateSpec,
        points: &[Point],
    ) -> Checked<(Vec<(u32, NodeId)>, Option<NodeId>)> {
        let mask = self.mask();
        let clipped = self.clipped_sums(loss, mask, private, points)?;
        let first_new = self.graph.len();
        let mut gradients = Vec::new();
        for (parameter, sum) in clipped.sums {
            let sum = if private.accumulates() { self.with_accumulated(parameter, sum) } else { sum };
            gradients.push((parameter, self.privatised(parameter, sum, guarantee)));
        }
        self.came_from(first_new, private.span);
        Ok((gradients, Some(clipped.bad)))
    }

    /// Adds a pass's clipped sums to those of earlier passes.
    pub(in crate::check) fn accumulated_sums(
        &mut self,
        loss: NodeId,
        private: &Private,
        points: &[Point],
    ) -> Checked<()> {
        let mask = self.mask();
        let clipped = self.clipped_sums(loss, mask, private, points)?;
        for (parameter, sum) in clipped.sums {
            let (index, before) = self.accumulator(parameter, sum);
            let after = self.graph.plus(before, sum);
            self.graph.set_output(Output::State(index), after);
        }
        self.guarded_outputs(clipped.bad);
        Ok(())
    }

    /// What earlier passes have summed up, added; the next step starts from 0 again.
    fn with_accumulated(&mut self, parameter: u32, sum: NodeId) -> NodeId {
        let (index, before) = self.accumulator(parameter, sum);
        let zero = self.graph.full_like(0.0, sum);
        self.graph.set_output(Output::State(index), zero);
        self.graph.plus(before, sum)
    }

    /// The state that holds the sum of a parameter's clipped gradients.
    fn accumulator(&mut self, parameter: u32, like: NodeId) -> (u32, NodeId) {
        let name = format!("private.sum.{}", self.registry.parameters[parameter as usize].name);
        let shape = self.graph.shape(like).to_vec();
        let init = Init::Constant { value: 0.0 };
        let index = self.registry.state(State { name, shape: shape.clone(), init });
        (index, self.graph.add(Op::State { index, shape }, &[]))
    }

    /// 1 for each row that counts.
    fn mask(&mut self) -> NodeId {
        let index = self.registry.input(Input {
            name: "private.mask".into(),
            field: String::new(),
            shift: 0,
            dtype: DType::F32,
            below: None,
            kind: InputKind::Mask,
        });
        let ty = TensorType::f32(vec![self.mode.batch]);
        self.graph.add(Op::Input { index, ty }, &[])
    }
}
