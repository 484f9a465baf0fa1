//! The calling convention between the launcher and generated code.

/// One stage of a kernel, computing the tiles `tile_begin..tile_end` of its fixed partition.
///
/// * `args`: one pointer per buffer of the kernel, in the kernel's order, aligned to [`ARGUMENT_ALIGNMENT`].
/// * `instance`: which iteration of a `repeat` this launch belongs to (0 outside); it keys random draws.
/// * `scratch`: memory private to the calling thread, at least the kernel's `scratch_bytes`, 64-byte aligned.
///
/// What a tile computes depends on nothing but its number, so the split over threads cannot change a bit. Stages of
/// one kernel run in order with a barrier between them.
pub type StageFn =
    unsafe extern "C" fn(args: *const *mut u8, instance: u64, tile_begin: u64, tile_end: u64, scratch: *mut u8);

/// Alignment in bytes of the arena and of every buffer in it: one cache line, one AVX-512 vector.
pub const BUFFER_ALIGNMENT: u64 = 64;

/// Least alignment in bytes of a launch argument: slices of stacked tensors start wherever the slice before ends.
pub const ARGUMENT_ALIGNMENT: u64 = 4;

/// On devices an argument whose size is a multiple of this begins at one, so that it can be read by vectors. Slices of
/// stacked tensors do, since they are as large as the argument.
pub const DEVICE_VECTOR_BYTES: u64 = 16;
