//! The library where f32 saturates, on the emulated device: values and gradients of everything in it.

use super::{clean, compiled, opened};
use trainc_kernels::Target;
use trainc_runtime::{artifact::Isa, device::Place};
use trainc_tests::extremes::Extremes;

#[test]
fn everything_in_the_library_stays_finite_and_right_where_f32_saturates() {
    clean("saturation::everything_in_the_library_stays_finite_and_right_where_f32_saturates", || {
        let extremes = Extremes::new();
        let truths = extremes.truths();
        for precision in ["f32", "bf16"] {
            let artifact = compiled("extremes", &extremes.text(precision), Target::Cuda, Isa::Sm80);
            let mut session = opened("extremes", artifact, Place::Cuda(0));
            extremes.check(&truths, "the device", precision, &mut session);
        }
    });
}
