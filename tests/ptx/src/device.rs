//! A device: memory, loaded modules, launches with typed arguments.

use std::sync::Arc;

use crate::decode::Program;
use crate::decode::program::Kernel;
use crate::exec::{self, Geometry, Options, Report};
use crate::memory::AccessError;
use crate::memory::global::GlobalMemory;
use crate::syntax::PtxError;
use crate::syntax::tree::Space;

/// A module on a device, with the addresses of its variables.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its kernels.
    pub program: Arc<Program>,
    /// Address of each variable.
    pub variables: Arc<[u64]>,
}

/// A kernel argument.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Arg {
    /// A device address.
    Pointer(u64),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
}

impl Arg {
    fn bytes(self) -> Vec<u8> {
        match self {
            Arg::Pointer(value) | Arg::U64(value) => value.to_le_bytes().to_vec(),
            Arg::U32(value) => value.to_le_bytes().to_vec(),
            Arg::I32(value) => value.to_le_bytes().to_vec(),
            Arg::F32(value) => value.to_le_bytes().to_vec(),
        }
    }
}

/// A device without a driver around it.
#[derive(Debug)]
pub struct Device {
    /// Its memory.
    pub memory: GlobalMemory,
    /// How kernels run.
    pub options: Options,
}

impl Device {
    /// A device with 16 GiB of (lazily backed) memory.
    pub fn new(options: Options) -> Device {
        Device { memory: GlobalMemory::new(16 << 30), options }
    }

    /// Loads a PTX text and places its variables.
    pub fn load(&mut self, source: &str) -> Result<Loaded, PtxError> {
        let program = Program::load(source)?;
        let mut addresses = Vec::new();
        for variable in &program.variables {
            if !matches!(variable.space, Space::Global | Space::Const) || variable.external {
                addresses.push(0);
                continue;
            }
            let error = || PtxError { line: variable.line, message: format!("no memory for `{}`", variable.name) };
            let bytes = usize::try_from(variable.bytes).map_err(|_| error())?;
            let address = self.memory.allocate(bytes, Some(&format!("`{}`", variable.name))).ok_or_else(error)?;
            // Module variables without initial value are zero.
            let mut initial = variable.initial.clone().unwrap_or_default();
            initial.resize(bytes, 0);
            self.memory.write(address, &initial).map_err(|_| error())?;
            if variable.space == Space::Const {
                self.memory.protect(address);
            }
            addresses.push(address);
        }
        Ok(Loaded { program: Arc::new(program), variables: addresses.into() })
    }

    /// Allocates memory and copies numbers into it.
    pub fn upload<T: Copy + ToBytes>(&mut self, values: &[T], label: &str) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bytes()).collect();
        let address = self.memory.allocate(bytes.len(), Some(label)).expect("the capacity suffices for tests");
        self.memory.write(address, &bytes).expect("the allocation has this size");
        address
    }

    /// Reads `count` numbers of four bytes.
    pub fn download(&self, address: u64, count: usize) -> Result<Vec<u32>, AccessError> {
        let mut bytes = vec![0; 4 * count];
        self.memory.read(address, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
    }

    /// Reads `count` f32.
    pub fn download_f32(&self, address: u64, count: usize) -> Result<Vec<f32>, AccessError> {
        Ok(self.download(address, count)?.into_iter().map(f32::from_bits).collect())
    }

    /// Launches a kernel with arguments in the order of its parameters.
    pub fn launch(&mut self, loaded: &Loaded, kernel: &Kernel, geometry: Geometry, args: &[Arg]) -> Report {
        let mut params = vec![0; kernel.param_bytes];
        for (param, arg) in kernel.params.iter().zip(args) {
            let bytes = arg.bytes();
            let count = bytes.len().min(param.bytes);
            params[param.offset..param.offset + count].copy_from_slice(&bytes[..count]);
        }
        exec::launch(kernel, geometry, &params, &loaded.variables, &mut self.memory, &self.options)
    }
}

/// Numbers with a little-endian form.
pub trait ToBytes {
    /// Their bytes.
    fn to_bytes(self) -> Vec<u8>;
}

macro_rules! to_bytes {
    ($($ty:ty),*) => {$(
        impl ToBytes for $ty {
            fn to_bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )*};
}

to_bytes!(u8, u16, u32, i32, u64, f32, f64);
