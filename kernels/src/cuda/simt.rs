//! What a thread of the device can do beyond arithmetic: find its place, share memory, wait, shuffle.

use crate::emit::builder::{Builder, Elem, Type, Value};

/// Threads of a warp.
pub(super) const WARP: u32 = 32;

const I32: Type = Type::scalar(Elem::I32);

/// The place of a thread.
impl Builder {
    fn special_register(&mut self, name: &str) -> Value {
        let value = self.define(I32, format_args!("nvvm.read.ptx.sreg.{name} : i32"));
        self.extend_unsigned(value, Elem::I64)
    }

    /// Number of the thread in its block (i64).
    pub fn thread(&mut self) -> Value {
        self.special_register("tid.x")
    }

    /// Number of the block in the grid (i64).
    pub fn block(&mut self) -> Value {
        self.special_register("ctaid.x")
    }
}

/// Shared memory.
impl Builder {
    /// Declares the shared memory whose size is given at launch; once a module.
    pub fn declare_shared(&mut self) {
        self.global(format_args!(
            "llvm.mlir.global external @shared() {{addr_space = 3 : i32, alignment = 16 : i64}} : !llvm.array<0 x i8>"
        ));
    }

    /// The shared memory of the block, from f32 element `offset` on.
    pub fn shared(&mut self, offset: u64) -> Value {
        let ty = Type::scalar(Elem::Shared);
        let base = self.define(ty, format_args!("llvm.mlir.addressof @shared : !llvm.ptr<3>"));
        self.float_after(base, offset)
    }

    /// Waits for all threads of the block; what they wrote is then visible.
    pub fn barrier(&mut self) {
        self.effect(format_args!("nvvm.barrier0"));
    }

    /// Waits for all threads of the warp.
    pub fn warp_barrier(&mut self) {
        let all = self.int(1, -1);
        self.effect(format_args!("nvvm.bar.warp.sync {all} : i32"));
    }

    /// The value that the thread whose number differs in the bits of `mask` has. All threads of the warp take part.
    pub fn shuffle_xor(&mut self, value: Value, mask: u32) -> Value {
        let (all, mask, clamp) = (self.int(1, -1), self.int(1, mask as i32), self.int(1, 31));
        let ty = value.ty;
        self.define(ty, format_args!("nvvm.shfl.sync bfly {all}, {value}, {mask}, {clamp} : {ty} -> {ty}"))
    }
}

/// Emits the body where `condition` holds; without one, always.
pub(super) fn guarded(b: &mut Builder, condition: Option<Value>, emit: impl FnOnce(&mut Builder)) {
    let Some(condition) = condition else { return emit(b) };
    let open = b.begin_if(condition, &[]);
    emit(b);
    b.begin_else(&[]);
    b.end_if(open, &[]);
}
