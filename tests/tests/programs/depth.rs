//! Compile work does not depend on depth.

use trainc::compile::Summary;
use trainc_tests::program;

fn summary(depth: &str) -> Summary {
    let text = program::read("dsl-examples/gpt_rust.train");
    program::compile("gpt_rust", &text, &[("depth", depth)]).summary()
}

#[test]
fn e_nodes_and_kernels_are_equal_at_depth_2_12_and_96() {
    let [shallow, middle, deep] = ["2", "12", "96"].map(summary);
    for other in [&middle, &deep] {
        assert_eq!(shallow.e_nodes, other.e_nodes);
        assert_eq!(shallow.distinct_kernels, other.distinct_kernels);
    }
    assert!(deep.launches_per_step > 8 * middle.launches_per_step / 2, "launches grow with depth");
}
