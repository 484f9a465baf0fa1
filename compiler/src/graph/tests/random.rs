//! What holds for random graphs.

use super::*;

/// Random directions, and the slope of the loss along them by central differences.
fn slope(sample: &mut arbitrary::Sample, direction: &[Tensor]) -> f64 {
    const STEP: f64 = 1e-5;
    let base = sample.bindings.parameters.clone();
    let mut at = |shift: f64| {
        for (index, along) in (0..).zip(direction) {
            let moved = base[&index].data.iter().zip(&along.data).map(|(x, d)| x + shift * d).collect();
            sample.bindings.parameters.insert(index, Tensor::new(along.ty.clone(), moved));
        }
        value(&sample.graph, &sample.bindings, sample.loss).scalar()
    };
    let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
    sample.bindings.parameters = base;
    slope
}

#[test]
fn gradients_of_random_graphs_agree_with_differences() {
    for seed in 0..300 {
        let mut sample = arbitrary::sample(seed, 8);
        sample.graph.verify().unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", sample.graph));
        let gradients = differentiate(&mut sample.graph, sample.loss, &sample.parameters).expect("differentiable");
        sample.graph.verify().unwrap_or_else(|error| panic!("seed {seed}, backward: {error}\n{}", sample.graph));
        let shapes: Vec<Vec<u64>> = sample.parameters.iter().map(|&p| sample.graph.shape(p).to_vec()).collect();
        let direction: Vec<Tensor> = (500..).zip(&shapes).map(|(stream, shape)| noise(stream, shape)).collect();
        let mut found = 0.0;
        let mut size = 0.0;
        for (gradient, along) in gradients.iter().zip(&direction) {
            let Some(gradient) = gradient else { continue };
            let gradient = value(&sample.graph, &sample.bindings, *gradient);
            found += gradient.data.iter().zip(&along.data).map(|(g, d)| g * d).sum::<f64>();
            size += norm(gradient.data);
        }
        let expected = slope(&mut sample, &direction);
        let error = (found - expected).abs();
        assert!(error <= 1e-6 * (size + 1e-2), "seed {seed}: {found}, by differences {expected}\n{}", sample.graph);
    }
}

#[test]
fn pruning_keeps_the_outputs_and_drops_the_rest() {
    for seed in 0..100 {
        let mut sample = arbitrary::sample(seed, 8);
        let before = value(&sample.graph, &sample.bindings, sample.loss);
        differentiate(&mut sample.graph, sample.loss, &sample.parameters).expect("differentiable");
        let (pruned, places) = sample.graph.prune();
        pruned.verify().unwrap_or_else(|error| panic!("seed {seed}: {error}\n{pruned}"));
        let moved = places[sample.loss.index()].expect("the loss is an output");
        assert_eq!(value(&pruned, &sample.bindings, moved), before, "seed {seed}");
        assert!(pruned.len() < sample.graph.len(), "no output needs the gradients");
        assert_eq!(pruned.prune().0.len(), pruned.len());
    }
}
