//! The processor's floating-point mode.
//!
//! Every thread that runs kernels does so in one fixed mode, whatever the embedding program has set: otherwise the bits
//! of a result would depend on the thread that computed it. The mode rounds to nearest even and flushes subnormal
//! numbers to zero: attention probabilities and gradients fall below 1e-38 all the time, mean nothing there, and would
//! slow many processors down a hundredfold.

/// The x86 control word: all exceptions masked, round to nearest, flush-to-zero, denormals-are-zero.
#[cfg(target_arch = "x86_64")]
const CONTROL_WORD: u32 = 0x1f80 | 1 << 15 | 1 << 6;

/// Sets the mode on this thread for good.
pub fn set_mode() {
    #[cfg(target_arch = "x86_64")]
    load(CONTROL_WORD);
}

/// Runs `work` in the mode, then restores the caller's.
pub fn with_mode<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    let _restore = {
        let restore = Restore(store());
        load(CONTROL_WORD);
        restore
    };
    work()
}

#[cfg(target_arch = "x86_64")]
struct Restore(u32);

#[cfg(target_arch = "x86_64")]
impl Drop for Restore {
    fn drop(&mut self) {
        load(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
fn load(word: u32) {
    // SAFETY: the words that reach this are valid control words: ours, or what the thread had before.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, readonly)) };
}

#[cfg(target_arch = "x86_64")]
fn store() -> u32 {
    let mut word = 0u32;
    // SAFETY: writes four bytes to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
    word
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn subnormals_are_flushed_inside_and_kept_outside() {
        let half = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(half() > 0.0);
        with_mode(|| assert_eq!(half(), 0.0));
        assert!(half() > 0.0);
    }
}
