//! Executes launches on a CUDA device: one arena, one stream for launches and one for copies.
//!
//! The launches of an entry are recorded once and then started as one graph. Inputs go through pinned memory on the stream
//! of copies, for which the launches wait; batches of the program's own data travel while the step before runs ([`ahead`]).

mod ahead;
mod driver;

pub use driver::CudaError;

use crate::artifact::{Artifact, BlockSpec, Control, Entry, InputBinding, Isa, Variant};
use ahead::Ahead;
use cudarc::driver::{result, sys};
use driver::{Context, Doing, Event, Graph, Memory, Module, Pinned, Stream};
use std::{collections::BTreeMap, ffi::c_void};

/// A device with one artifact's code loaded and its arena allocated.
///
/// Fields are dropped in order: what belongs to the context goes before it.
pub struct Cuda {
    graphs: BTreeMap<String, Graph>,
    kernels: Vec<Vec<Stage>>,
    _modules: Vec<Module>,
    arena: Memory,
    arena_bytes: u64,
    staging: Staging,
    ahead: Option<Ahead>,
    /// The end of the copies that the launches wait for, and of the launches that later copies wait for.
    copied: Event,
    launched: Event,
    copies: Stream,
    launches: Stream,
    isa: Isa,
    context: Context,
}

// SAFETY: the handles belong to a context that is made current on the calling thread before any of them is used.
unsafe impl Send for Cuda {}

/// One launch of a kernel.
struct Stage {
    function: sys::CUfunction,
    blocks: u32,
    block: BlockSpec,
}

/// Pinned memory that is filled from the front until the next launch.
struct Staging {
    memory: Pinned,
    used: usize,
    /// Launches have been given out since the copies were last waited for.
    launched: bool,
}

impl Cuda {
    /// Opens device `number`, loads the best variant that it executes (or the one wanted) and allocates everything that
    /// running will need.
    ///
    /// # Errors
    /// Without a driver, a device, enough memory, or code that the device executes.
    pub fn new(artifact: &Artifact, number: u32, wanted: Option<Isa>) -> Result<Self, super::DeviceError> {
        let manifest = &artifact.manifest;
        let context = Context::open(number)?;
        let index = choose(&manifest.variants, &context, wanted)?;
        let variant = &manifest.variants[index];
        let (launches, copies) = (Stream::new()?, Stream::new()?);
        let arena = Memory::new(&context, manifest.arena_bytes, &launches)?;
        let mut modules = Vec::new();
        for object in &artifact.code[index].1 {
            let ptx = String::from_utf8_lossy(object);
            driver::check_version(&ptx, context.driver)?;
            modules.push(Module::load(&ptx)?);
        }
        let owners = owners(&artifact.code[index].1);
        let kernels = variant.kernels.iter().map(|kernel| {
            let stages = kernel.stages.iter().map(|stage| {
                let block = stage.block.expect("verified: device code says what a block is");
                let module = &modules[owners[&stage.symbol]];
                let function = module.function(&stage.symbol, block.shared_bytes)?;
                Ok(Stage { function, blocks: stage.tiles as u32, block })
            });
            stages.collect::<Result<Vec<_>, CudaError>>()
        });
        let kernels = kernels.collect::<Result<Vec<_>, CudaError>>()?;
        let staging = Staging { memory: Pinned::new(staging_bytes(&manifest.entries))?, used: 0, launched: false };
        // Batches of private training are drawn when their turn comes.
        let feeds_itself = manifest.data.is_some() && manifest.private.is_none();
        let step = manifest.entry("step").filter(|_| feeds_itself);
        let ahead = step.map(|step| Ahead::new(&context, input_bytes(step))).transpose()?;
        launches.wait()?;
        Ok(Self {
            graphs: BTreeMap::new(),
            kernels,
            _modules: modules,
            arena,
            arena_bytes: manifest.arena_bytes,
            staging,
            ahead,
            copied: Event::new()?,
            launched: Event::new()?,
            copies,
            launches,
            isa: variant.isa,
            context,
        })
    }

    /// The instruction set of the loaded code.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Size of the arena.
    pub fn arena_bytes(&self) -> u64 {
        self.arena_bytes
    }

    /// Bytes of the arena, once all launches and copies so far are done.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, CudaError> {
        self.context.enter()?;
        self.launches.after(&self.copies, &self.copied)?;
        let source = self.place(offset, bytes);
        let mut out = vec![0; bytes as usize];
        // SAFETY: in bounds; the stream is waited for before the buffer is used.
        unsafe { result::memcpy_dtoh_async(&mut out, source, self.launches.0) }.doing("reading results")?;
        self.launches.wait()?;
        Ok(out)
    }

    /// Has bytes of the arena written: `fill` writes them here, from here they are copied. What fits goes through pinned
    /// memory while the processor goes on.
    ///
    /// # Errors
    /// When the device fails; `fill` decides about its own.
    pub fn write<E: From<CudaError>>(
        &mut self,
        offset: u64,
        bytes: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.context.enter()?;
        let target = self.place(offset, bytes);
        let bytes = bytes as usize;
        if std::mem::take(&mut self.staging.launched) {
            self.copies.wait()?;
            self.staging.used = 0;
        }
        if self.staging.used + bytes > self.staging.memory.bytes() {
            let mut data = vec![0; bytes];
            fill(&mut data)?;
            // What was staged before may be for the same place.
            self.launches.after(&self.copies, &self.copied)?;
            // SAFETY: in bounds; the copy is waited for.
            unsafe { result::memcpy_htod_async(target, &data, self.launches.0) }.doing("writing to the arena")?;
            return Ok(self.launches.wait()?);
        }
        let data = self.staging.memory.slice_mut(self.staging.used, bytes);
        fill(data)?;
        self.staging.used += bytes;
        // SAFETY: in bounds; the staging memory is not touched again before the stream has been waited for.
        unsafe { result::memcpy_htod_async(target, data, self.copies.0) }.doing("copying a batch")?;
        Ok(())
    }

    /// Sends a batch for an entry while launches run; `fill` is given each input and where to write it. Whether it was sent.
    ///
    /// # Errors
    /// When the device fails; `fill` decides about its own.
    pub fn send_ahead<E: From<CudaError>>(
        &mut self,
        entry: &Entry,
        mut fill: impl FnMut(&InputBinding, &mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.context.enter()?;
        let Some(ahead) = &mut self.ahead else { return Ok(false) };
        ahead.send(|batch| {
            let mut rest = batch;
            entry.inputs.iter().try_for_each(|input| {
                let (own, others) = std::mem::take(&mut rest).split_at_mut(input.bytes() as usize);
                rest = others;
                fill(input, own)
            })
        })?;
        Ok(true)
    }

    /// Has the next launches of the entry read the batch that was sent for it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take_ahead(&mut self, entry: &Entry) -> Result<(), CudaError> {
        self.context.enter()?;
        let pieces = entry.inputs.iter().map(|input| (self.place(input.offset, input.bytes()), input.bytes()));
        let pieces: Vec<_> = pieces.collect();
        self.ahead.as_ref().map_or(Ok(()), |ahead| ahead.take(&self.launches, &pieces))
    }

    fn place(&self, offset: u64, bytes: u64) -> sys::CUdeviceptr {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.arena_bytes);
        assert!(inside, "bytes {offset}..+{bytes} lie in the arena of {} bytes", self.arena_bytes);
        self.arena.0 + offset
    }

    /// Starts the launches of an entry after all copies so far. They must belong to the verified artifact that this
    /// device was made for.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&mut self, entry: &Entry) -> Result<(), CudaError> {
        self.context.enter()?;
        self.launches.after(&self.copies, &self.copied)?;
        if !self.graphs.contains_key(&entry.name) {
            let graph = Graph::capture(&self.launches, || self.enqueue(entry))?;
            self.graphs.insert(entry.name.clone(), graph);
        }
        self.graphs[&entry.name].launch(&self.launches)?;
        // Whatever is copied next may overwrite what these launches read.
        self.copies.after(&self.launches, &self.launched)?;
        self.staging.launched = true;
        Ok(())
    }

    fn enqueue(&self, entry: &Entry) -> Result<(), CudaError> {
        for launch in &entry.launches {
            let mut pointers: Vec<u64> = launch.args.iter().map(|&offset| self.arena.0 + offset).collect();
            let mut instance = u64::from(launch.instance);
            let mut arguments: Vec<*mut c_void> =
                pointers.iter_mut().map(|pointer| std::ptr::from_mut(pointer).cast()).collect();
            arguments.push(std::ptr::from_mut(&mut instance).cast());
            for stage in &self.kernels[launch.kernel as usize] {
                let (grid, block) = ((stage.blocks, 1, 1), (stage.block.threads, 1, 1));
                // SAFETY: verified: as many arguments as the kernel takes, inside the arena; the driver copies them.
                unsafe {
                    result::launch_kernel(
                        stage.function,
                        grid,
                        block,
                        stage.block.shared_bytes,
                        self.launches.0,
                        &mut arguments,
                    )
                }
                .doing("launching a kernel")?;
            }
        }
        Ok(())
    }
}

/// Which object defines each entry.
fn owners(objects: &[Vec<u8>]) -> BTreeMap<String, usize> {
    let of = |(number, object): (usize, &Vec<u8>)| {
        let names = crate::code::ptx_entries(&String::from_utf8_lossy(object));
        names.into_iter().map(move |name| (name, number)).collect::<Vec<_>>()
    };
    objects.iter().enumerate().flat_map(of).collect()
}

/// What the inputs of the largest entry and the control block take.
fn staging_bytes(entries: &[Entry]) -> usize {
    let largest = entries.iter().map(input_bytes).max().unwrap_or(0);
    largest as usize + size_of::<Control>()
}

fn input_bytes(entry: &Entry) -> u64 {
    entry.inputs.iter().map(InputBinding::bytes).sum()
}

fn choose(variants: &[Variant], context: &Context, wanted: Option<Isa>) -> Result<usize, super::DeviceError> {
    let of_devices = || variants.iter().filter_map(|variant| variant.isa.capability());
    let Some(least) = of_devices().min() else {
        return Err(super::DeviceError::OtherTarget {
            available: variants.iter().map(|variant| variant.isa).collect(),
        });
    };
    let usable = |variant: &Variant| {
        variant.isa.capability().is_some_and(|needs| needs <= context.capability)
            && wanted.is_none_or(|wanted| wanted == variant.isa)
    };
    match (variants.iter().position(usable), wanted) {
        (Some(index), _) => Ok(index),
        (None, Some(wanted)) => Err(super::DeviceError::VariantUnavailable { wanted }),
        (None, None) => {
            let device = context.name.clone();
            Err(CudaError::Capability { device, has: context.capability, needs: least }.into())
        }
    }
}
