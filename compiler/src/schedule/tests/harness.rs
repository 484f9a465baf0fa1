//! Running a plan, and comparing it with the graph.

use crate::{
    graph::{Bindings, Graph, Op, Output, Tensor, TensorType, interpret},
    program::{Input, Parameter, Program, State, TrainSettings},
    schedule::{Persistent, Plan, Request, ScheduleError, assemble, dag::Choices, schedule},
    source::{FileId, Span},
};
use std::collections::BTreeMap;
use trainc_kernels::{
    Target,
    ir::{Access, DType, Kernel, Precision},
    reference::{self, HostBuffer},
};
use trainc_runtime::artifact::{Duration, Entry, Init};

/// Largest difference between plan and graph, relative to the largest element (or 1).
const TOLERANCE: f64 = 2e-4;

/// A graph with what its nodes refer to.
#[derive(Clone)]
pub struct Case {
    pub graph: Graph,
    pub parameters: Vec<Vec<u64>>,
    pub states: Vec<Vec<u64>>,
    /// Integer inputs are below this.
    pub below: i32,
    /// What to evaluate it on, if not on noise.
    pub bindings: Option<Bindings>,
}

/// Numbers that look random.
pub fn noise(seed: u64, elements: u64) -> Vec<f64> {
    let number = |i: u64| {
        let mut z = (seed << 40).wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        f64::from((((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5) * 1.5)
    };
    (0..elements).map(number).collect()
}

fn tensor(seed: u64, ty: &TensorType, below: i32) -> Tensor {
    let data = noise(seed, ty.elements());
    match ty.dtype {
        DType::I32 => Tensor::new(ty.clone(), data.iter().map(|x| ((x.abs() * 1e6) as i32 % below).into()).collect()),
        _ => Tensor::new(ty.clone(), data),
    }
}

impl Case {
    fn inputs(&self) -> BTreeMap<u32, TensorType> {
        let input = |id| match &self.graph.node(id).op {
            Op::Input { index, ty } => Some((*index, ty.clone())),
            _ => None,
        };
        self.graph.ids().filter_map(input).collect()
    }

    pub fn bindings(&self) -> Bindings {
        if let Some(bindings) = &self.bindings {
            return bindings.clone();
        }
        let numbered = |base: u64, shapes: &[Vec<u64>]| {
            let tensors = shapes.iter().zip(0..);
            tensors.map(|(shape, n)| (n, tensor(base + u64::from(n), &TensorType::f32(shape.clone()), 1))).collect()
        };
        let mut bindings = Bindings {
            inputs: self.inputs().iter().map(|(&n, ty)| (n, tensor(100 + u64::from(n), ty, self.below))).collect(),
            parameters: numbered(1000, &self.parameters),
            states: numbered(2000, &self.states),
            step: 3,
            steps: 20,
            seed: 7,
            ..Bindings::default()
        };
        // Second moments are not negative.
        bindings.states.values_mut().for_each(|state| *state = state.map(f64::abs));
        bindings
    }

    pub fn program(&self) -> Program {
        let span = Span { file: FileId(0), start: 0, end: 0 };
        let init = Init::Constant { value: 0.0 };
        let parameter = |(n, shape): (usize, &Vec<u64>)| Parameter {
            name: format!("p{n}"),
            shape: shape.clone(),
            stacked: false,
            split: 0,
            roles: Vec::new(),
            init: init.clone(),
            trainable: true,
            span,
        };
        let state =
            |(n, shape): (usize, &Vec<u64>)| State { name: format!("s{n}"), shape: shape.clone(), init: init.clone() };
        let input = |(n, ty): (&u32, &TensorType)| Input {
            name: format!("x{n}"),
            field: format!("x{n}"),
            shift: 0,
            dtype: ty.dtype,
            below: None,
            kind: crate::program::InputKind::Field,
        };
        Program {
            name: "case".into(),
            parameters: self.parameters.iter().enumerate().map(parameter).collect(),
            states: self.states.iter().enumerate().map(state).collect(),
            inputs: self.inputs().iter().map(input).collect(),
            step: self.graph.clone(),
            accumulate: None,
            evaluate: None,
            conclude: None,
            generate: None,
            data: None,
            private: None,
            train: TrainSettings {
                steps: Duration::Steps(20),
                batch: 1,
                precision: Precision::F32,
                seed: 7,
                evaluate_every: Duration::Steps(0),
                evaluate_batches: None,
                checkpoint_every: Duration::Steps(0),
                keep: 1,
                memory: None,
                items_per_step: 1,
                item: "samples".into(),
            },
            warnings: Vec::new(),
        }
    }

    /// The smallest arena that recomputation can reach.
    pub fn least_memory(&self) -> Option<u64> {
        let program = self.program();
        match schedule(&Request {
            program: &program,
            entries: &[("step", &self.graph)],
            memory_budget: Some(1),
            target: Default::default(),
        }) {
            Err(ScheduleError::OverBudget { needed, .. }) => Some(needed),
            _ => None,
        }
    }

    /// The plan with all values in f32.
    pub fn wide_plan(&self) -> Plan {
        let program = self.program();
        let entries: &[(&str, &Graph)] = &[("step", &self.graph)];
        let request = Request { program: &program, entries, memory_budget: None, target: Default::default() };
        let choices = vec![Choices { wide: true, ..Choices::default() }];
        assemble(&request, &Persistent::new(&program), choices).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn plan(&self, memory_budget: Option<u64>) -> Plan {
        self.plan_for(Target::default(), memory_budget)
    }

    pub fn plan_for(&self, target: Target, memory_budget: Option<u64>) -> Plan {
        let program = self.program();
        let request = Request { program: &program, entries: &[("step", &self.graph)], memory_budget, target };
        schedule(&request).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The arena after a plan has run on the case's bindings.
    pub fn run(&self, plan: &Plan) -> Memory {
        let mut memory = Memory::of(self, plan);
        memory.step(self, plan);
        memory
    }
}

/// The arena, with junk wherever nothing was written.
pub struct Memory {
    bytes: Vec<u8>,
}

impl Memory {
    pub fn new(plan: &Plan) -> Memory {
        Memory { bytes: (0..plan.arena_bytes).map(|n| if n % 4 == 3 { 0x7F } else { 0xC1 }).collect() }
    }

    /// The arena as it is before the first step of a case.
    pub fn of(case: &Case, plan: &Plan) -> Memory {
        let bindings = case.bindings();
        let mut memory = Memory::new(plan);
        let control = [bindings.seed as u32, (bindings.seed >> 32) as u32, bindings.step, bindings.steps];
        for (word, place) in control.iter().zip((plan.control_offset as usize..).step_by(4)) {
            memory.bytes[place..place + 4].copy_from_slice(&word.to_le_bytes());
        }
        for (n, spec) in plan.tensors.iter().enumerate() {
            let number = n as u32;
            let states = case.parameters.len() as u32;
            let value = match number < states {
                true => &bindings.parameters[&number],
                false => &bindings.states[&(number - states)],
            };
            memory.write(spec.offset, value);
        }
        memory
    }

    /// One step of a case.
    pub fn step(&mut self, case: &Case, plan: &Plan) {
        let (entry, bindings) = (&plan.entries[0], case.bindings());
        for (input, (number, _)) in entry.inputs.iter().zip(case.inputs()) {
            self.write(input.offset, &bindings.inputs[&number]);
        }
        self.run(&plan.kernels, entry);
    }

    /// What lies at an offset.
    pub fn bytes_at(&self, offset: u64, count: u64) -> Vec<u8> {
        self.bytes[offset as usize..(offset + count) as usize].to_vec()
    }

    pub fn write(&mut self, offset: u64, tensor: &Tensor) {
        for (element, place) in tensor.data.iter().zip((offset as usize..).step_by(4)) {
            let bytes = match tensor.ty.dtype {
                DType::I32 => (*element as i32).to_le_bytes(),
                _ => (*element as f32).to_le_bytes(),
            };
            self.bytes[place..place + 4].copy_from_slice(&bytes);
        }
    }

    pub fn read(&self, offset: u64, ty: &TensorType) -> Tensor {
        let word = |place: usize| <[u8; 4]>::try_from(&self.bytes[place..place + 4]).expect("four bytes");
        let element = |place: usize| match ty.dtype {
            DType::I32 => i32::from_le_bytes(word(place)).into(),
            _ => f64::from(f32::from_le_bytes(word(place))),
        };
        Tensor::new(ty.clone(), (0..ty.elements() as usize).map(|n| element(offset as usize + 4 * n)).collect())
    }

    fn buffer(&self, offset: u64, dtype: DType, elements: u64) -> HostBuffer {
        if dtype == DType::Bf16 {
            let element = |place| u16::from_le_bytes([self.bytes[place], self.bytes[place + 1]]);
            return HostBuffer::Bf16((0..elements as usize).map(|n| element(offset as usize + 2 * n)).collect());
        }
        let tensor = self.read(offset, &TensorType { dtype, shape: vec![elements] });
        match dtype {
            DType::I32 => HostBuffer::I32(tensor.data.iter().map(|&x| x as i32).collect()),
            _ => HostBuffer::F32(tensor.data.iter().map(|&x| x as f32).collect()),
        }
    }

    fn put(&mut self, offset: u64, buffer: &HostBuffer) {
        let tensor = match buffer {
            HostBuffer::I32(data) => Tensor::i32(&[data.len() as u64], data),
            HostBuffer::F32(data) => Tensor::f32(&[data.len() as u64], data.iter().map(|&x| x.into()).collect()),
            HostBuffer::Bf16(data) => {
                let places = (offset as usize..).step_by(2);
                return data.iter().zip(places).for_each(|(element, place)| {
                    self.bytes[place..place + 2].copy_from_slice(&element.to_le_bytes());
                });
            }
        };
        self.write(offset, &tensor);
    }

    fn run(&mut self, kernels: &[Kernel], entry: &Entry) {
        for launch in &entry.launches {
            let kernel = &kernels[launch.kernel as usize];
            assert_no_overlap(kernel, &launch.args);
            let arguments = kernel.buffers.iter().zip(&launch.args);
            let mut buffers: Vec<HostBuffer> =
                arguments.clone().map(|(buffer, &offset)| self.buffer(offset, buffer.dtype, buffer.elements)).collect();
            reference::run(kernel, &mut buffers, launch.instance.into());
            for ((buffer, &offset), contents) in arguments.zip(&buffers) {
                if buffer.access != Access::Read {
                    self.put(offset, contents);
                }
            }
        }
    }
}

/// What a kernel writes lies apart from all its other arguments.
fn assert_no_overlap(kernel: &Kernel, args: &[u64]) {
    let range = |n: usize| args[n]..args[n] + kernel.buffers[n].elements * kernel.buffers[n].dtype.bytes();
    for written in (0..kernel.buffers.len()).filter(|&n| kernel.buffers[n].access != Access::Read) {
        for other in (0..kernel.buffers.len()).filter(|&n| n != written) {
            let (a, b) = (range(written), range(other));
            assert!(a.end <= b.start || b.end <= a.start, "{}: arguments {written} and {other} overlap", kernel.label);
        }
    }
}

fn assert_close(what: &str, expected: &Tensor, found: &Tensor) {
    let scale = expected.data.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    for (position, (a, b)) in expected.data.iter().zip(&found.data).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * scale, "{what}[{position}]: the graph gives {a}, the plan {b}");
    }
}

/// Executes the plan of a case and compares all that it leaves behind with the graph's outputs.
pub fn check(case: &Case) -> Plan {
    check_within(case, None)
}

/// [`check`] under a memory budget.
pub fn check_within(case: &Case, memory_budget: Option<u64>) -> Plan {
    let plan = case.plan(memory_budget);
    let (entry, memory, bindings) = (&plan.entries[0], case.run(&plan), case.bindings());
    let mut expected = interpret(&case.graph, &bindings).unwrap_or_else(|error| panic!("{error}"));
    for (output, id) in case.graph.outputs() {
        let ty = &case.graph.node(*id).ty;
        let offset = match output {
            Output::Parameter(index) => plan.tensors[*index as usize].offset,
            Output::State(index) => plan.tensors[case.parameters.len() + *index as usize].offset,
            Output::Report(name) => entry.outputs.iter().find(|binding| binding.name == *name).expect("bound").offset,
        };
        let value = expected.output(output).unwrap_or_else(|error| panic!("{error}"));
        assert_close(&format!("{output:?}"), value, &memory.read(offset, ty));
    }
    plan
}
