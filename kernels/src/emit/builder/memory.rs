//! Memory.

use super::{Builder, Elem, Type, Value};
use std::fmt::Write;

impl Builder {
    /// The address of element `index` (i64) of an array.
    pub fn address(&mut self, base: Value, index: Value, elem: Elem) -> Value {
        if self.known_integer(index) == Some(0) {
            return base;
        }
        let (elem, ty) = (elem.name(), base.ty);
        self.define(ty, format_args!("llvm.getelementptr inbounds {base}[{index}] : ({ty}, i64) -> {ty}, {elem}"))
    }

    /// The address `offset` (i64) bytes from `base`.
    pub fn byte_at(&mut self, base: Value, offset: Value) -> Value {
        let operation = format_args!("llvm.getelementptr {base}[{offset}] : (!llvm.ptr, i64) -> !llvm.ptr, i8");
        self.define(Type::POINTER, operation)
    }

    /// A load aligned to one element. `invariant`: the memory does not change while the function runs.
    pub fn load(&mut self, address: Value, ty: Type, invariant: bool) -> Value {
        self.load_aligned(address, ty, ty.elem.bytes(), invariant)
    }

    /// A load whose address is known to be a multiple of `align` bytes.
    pub fn load_aligned(&mut self, address: Value, ty: Type, align: u32, invariant: bool) -> Value {
        let invariant = if invariant { " invariant" } else { "" };
        let from = address.ty;
        self.define(ty, format_args!("llvm.load {address}{invariant} {{alignment = {align} : i64}} : {from} -> {ty}"))
    }

    /// A store aligned to one element.
    pub fn store(&mut self, value: Value, address: Value) {
        self.store_aligned(value, address, value.ty.elem.bytes());
    }

    /// A store to an address that is known to be a multiple of `align` bytes.
    pub fn store_aligned(&mut self, value: Value, address: Value, align: u32) {
        let (ty, to) = (value.ty, address.ty);
        self.effect(format_args!("llvm.store {value}, {address} {{alignment = {align} : i64}} : {ty}, {to}"));
    }

    /// Loads the lanes that the mask selects; the others are those of `otherwise`.
    pub fn masked_load(&mut self, address: Value, mask: Value, otherwise: Value) -> Value {
        let (ty, align) = (otherwise.ty, otherwise.ty.elem.bytes());
        self.define(
            ty,
            format_args!(
                "llvm.intr.masked.load {address}, {mask}, {otherwise} {{alignment = {align} : i32}} : \
                 (!llvm.ptr, {}, {ty}) -> {ty}",
                mask.ty
            ),
        )
    }

    /// Asks for the cache line at an address, which need not be one that may be accessed, before it is read or written.
    pub fn prefetch(&mut self, address: Value, write: bool) {
        let rw = i32::from(write);
        self.effect(format_args!(
            "\"llvm.intr.prefetch\"({address}) <{{rw = {rw} : i32, hint = 3 : i32, cache = 1 : i32}}> : (!llvm.ptr) -> ()"
        ));
    }

    pub fn masked_store(&mut self, value: Value, address: Value, mask: Value) {
        let (ty, align) = (value.ty, value.ty.elem.bytes());
        let _ = writeln!(
            self.body,
            "llvm.intr.masked.store {value}, {address}, {mask} {{alignment = {align} : i32}} : {ty}, {} into !llvm.ptr",
            mask.ty
        );
    }
}
