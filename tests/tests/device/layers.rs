//! Every layer and loss of the library by itself takes the same steps on the emulated device as on the processor.

use super::{Bound, compared_each};
use trainc_tests::layers::{LAYERS, Layer};

/// Compares a share of the layers, of `SHARES`.
const SHARES: usize = 3;

fn share(number: usize) -> Vec<(&'static str, String, Bound)> {
    let own = LAYERS.iter().skip(number).step_by(SHARES);
    own.map(|layer| (layer.name, layer.program(0.5), bound(layer))).collect()
}

/// Programs without a longer sum than the machines add up in the same order take equal steps.
const EQUAL: [&str; 5] = [
    "pooling of whole images",
    "linear map and squared error",
    "binary cross entropy",
    "dropout",
    "tables of tokens and positions",
];

fn bound(layer: &Layer) -> Bound {
    match layer.name {
        name if EQUAL.contains(&name) => Bound::Bits,
        _ => Bound::Relative(1e-5),
    }
}

#[test]
fn the_first_third_takes_the_same_steps() {
    compared_each("layers::the_first_third_takes_the_same_steps", &share(0));
}

#[test]
fn the_second_third_takes_the_same_steps() {
    compared_each("layers::the_second_third_takes_the_same_steps", &share(1));
}

#[test]
fn the_last_third_takes_the_same_steps() {
    compared_each("layers::the_last_third_takes_the_same_steps", &share(2));
}
