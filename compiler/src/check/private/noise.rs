//! From clipped sums to a private gradient: noise, once for each update, and division by the expected batch.

use super::super::evaluator::Evaluator;
use crate::graph::{NodeId, Op, Output, ScopeId};
use trainc_kernels::ir::{Generator, Unary};
use trainc_runtime::artifact::PrivateSpec;

/// Resolution of a uniform draw: it is a multiple of this.
const DRAW: f64 = 1.0 / 16_777_216.0;

impl Evaluator<'_> {
    /// `(sum + sigma * C * N(0, 1)) / batch`, with draws that belong to this parameter alone.
    pub(super) fn privatised(&mut self, parameter: u32, sum: NodeId, guarantee: &PrivateSpec) -> NodeId {
        let noise = self.gaussian(parameter, sum, guarantee.secure);
        let noise = self.graph.scale(noise, guarantee.noise_multiplier * guarantee.clip);
        let noisy = self.graph.plus(sum, noise);
        self.graph.scale(noisy, 1.0 / guarantee.expected_batch as f64)
    }

    /// Standard normal draws of a tensor's shape (Box and Muller 1958): `sqrt(-2 log u) cos(2 pi v)`. `u` lies in `(0, 1]` and
    /// takes two draws, so that its smallest values are 2^-48 apart and the tail reaches to 8.1 standard deviations.
    fn gaussian(&mut self, parameter: u32, like: NodeId, secure: bool) -> NodeId {
        let parts = [(0, "coarse"), (1, "fine"), (2, "angle")];
        let [coarse, fine, angle] = parts.map(|part| self.noise_draw(parameter, part, like, secure));
        let one = self.graph.full_like(1.0, like);
        let u = self.graph.minus(one, coarse);
        let fine = self.graph.scale(fine, DRAW);
        let u = self.graph.minus(u, fine);
        let log = self.graph.unary(Unary::Log, u);
        let square = self.graph.scale(log, -2.0);
        let radius = self.graph.unary(Unary::Sqrt, square);
        let angle = self.graph.scale(angle, std::f64::consts::TAU);
        let direction = self.graph.unary(Unary::Cos, angle);
        self.graph.times(radius, direction)
    }

    /// One of the draws that a normal number is made of. The seed gives each its own stream; of the operating system's key,
    /// whose blocks are dear, they are words of one block.
    fn noise_draw(&mut self, parameter: u32, (word, part): (u8, &str), like: NodeId, secure: bool) -> NodeId {
        let name = &self.registry.parameters[parameter as usize].name;
        let (path, generator) = match secure {
            true => (format!("private.noise.{name}"), Generator::ChaCha20 { word }),
            false => (format!("private.noise.{part}.{name}"), Generator::Philox),
        };
        let stream = self.registry.stream(&path);
        let shape = self.graph.shape(like).to_vec();
        self.graph.add(Op::Random { generator, stream, shape, scope: ScopeId::ROOT }, &[])
    }

    /// Keeps everything as it was if some row is bad: its contribution is in the sums, and the step is made again without it.
    pub(in crate::check) fn guarded_outputs(&mut self, bad: NodeId) {
        let some_bad = self.some_bad(bad);
        for (output, new) in self.graph.outputs().to_vec() {
            let old = match output {
                Output::Parameter(index) => self.registry.parameter_node(&mut self.graph, index),
                Output::State(index) => {
                    let shape = self.graph.shape(new).to_vec();
                    self.graph.add(Op::State { index, shape }, &[])
                }
                Output::Report(_) => continue,
            };
            let shape = self.graph.shape(new).to_vec();
            let condition = self.graph.broadcast(some_bad, &[], &shape);
            let kept = self.graph.select(condition, old, new);
            self.graph.set_output(output, kept);
        }
        self.graph.set_output(Output::Report("bad_rows".into()), bad);
    }
}
