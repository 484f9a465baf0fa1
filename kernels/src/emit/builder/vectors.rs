//! Conversions and vectors.

use super::{Builder, Elem, Type, Value, join};

impl Builder {
    /// The same i64 or pointer, of which the optimiser knows nothing.
    pub fn opaque(&mut self, a: Value) -> Value {
        self.define(a.ty, format_args!("llvm.inline_asm \"\", \"=r,0\" {a} : ({}) -> {}", a.ty, a.ty))
    }

    fn convert(&mut self, name: &str, a: Value, elem: Elem) -> Value {
        let ty = a.ty.with(elem);
        self.define(ty, format_args!("{name} {a} : {} to {ty}", a.ty))
    }

    pub fn bitcast(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.bitcast", a, elem)
    }

    /// The same bits as `lanes` elements of another type.
    pub fn reinterpret(&mut self, a: Value, ty: Type) -> Value {
        self.define(ty, format_args!("vector.bitcast {a} : {} to {ty}", a.ty))
    }

    /// f32 rounded to bf16, nearest even: one instruction where the processor has `avx512_bf16`.
    pub fn float_to_bf16(&mut self, a: Value) -> Value {
        self.convert("arith.truncf", a, Elem::Bf16)
    }

    /// `sum[i] + a[2i] c[2i] + a[2i + 1] c[2i + 1]` for 16 lanes of f32, each of `a` and `c` holding a pair of bf16:
    /// `vdpbf16ps`. LLVM aborts on it where the target lacks `avx512bf16`.
    pub fn dot_bf16(&mut self, a: Value, c: Value, sum: Value) -> Value {
        let pairs = Type::vector(Elem::Bf16, 2 * sum.ty.lanes);
        let (a, c) = (self.reinterpret(a, pairs), self.reinterpret(c, pairs));
        let (ty, operation) = (sum.ty, "llvm.call_intrinsic \"llvm.x86.avx512bf16.dpbf16ps.512\"");
        self.define(ty, format_args!("{operation}({sum}, {a}, {c}) : ({ty}, {pairs}, {pairs}) -> {ty}"))
    }

    pub fn int_to_float(&mut self, a: Value) -> Value {
        self.convert("arith.sitofp", a, Elem::F32)
    }

    /// Toward zero; the value must be in the range of i32.
    pub fn float_to_int(&mut self, a: Value) -> Value {
        self.convert("arith.fptosi", a, Elem::I32)
    }

    pub fn extend_signed(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extsi", a, elem)
    }

    pub fn extend_unsigned(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extui", a, elem)
    }

    pub fn truncate(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.trunci", a, elem)
    }

    /// The value in every lane.
    pub fn splat(&mut self, a: Value, lanes: u32) -> Value {
        if a.ty.lanes == lanes {
            return a;
        }
        let ty = Type::vector(a.ty.elem, lanes);
        self.define(ty, format_args!("vector.broadcast {a} : {} to {ty}", a.ty))
    }

    /// One lane; a scalar is its own lane.
    pub fn extract(&mut self, a: Value, lane: u32) -> Value {
        if a.ty.lanes == 1 {
            return a;
        }
        let ty = Type::scalar(a.ty.elem);
        self.define(ty, format_args!("vector.extract {a}[{lane}] : {ty} from {}", a.ty))
    }

    pub fn assemble(&mut self, lanes: &[Value]) -> Value {
        if let [lane] = lanes {
            return *lane;
        }
        let ty = Type::vector(lanes[0].ty.elem, lanes.len() as u32);
        self.define(ty, format_args!("vector.from_elements {} : {ty}", join(lanes)))
    }

    /// Lanes of the concatenation of `a` and `b`, by number.
    pub fn shuffle(&mut self, a: Value, b: Value, lanes: &[u32]) -> Value {
        let ty = Type::vector(a.ty.elem, lanes.len() as u32);
        self.define(ty, format_args!("vector.shuffle {a}, {b} [{}] : {}, {}", join(lanes), a.ty, b.ty))
    }
}
