//! What PyTorch (float64) wrote down about the programs of `tests/programs`; see `golden/torch/make.py`.

use crate::root;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;

/// Paths of parameters in our programs, with their names in the golden file.
pub type Names = [(&'static str, &'static str)];

/// The parameters of `gpt`.
pub const GPT: &Names = &[
    ("wte", "wte"),
    ("positions.table", "wpe"),
    ("block.layer_norm.gain", "ln1w"),
    ("block.layer_norm.bias", "ln1b"),
    ("block.attention.qkv", "qkvw"),
    ("block.attention.head_offset.bias", "qkvb"),
    ("block.attention.out", "projw"),
    ("block.attention.offset.bias", "projb"),
    ("block.layer_norm_2.gain", "ln2w"),
    ("block.layer_norm_2.bias", "ln2b"),
    ("block.ffn.linear.w", "fcw"),
    ("block.ffn.linear.offset.bias", "fcb"),
    ("block.ffn.linear_2.w", "fc2w"),
    ("block.ffn.linear_2.offset.bias", "fc2b"),
    ("layer_norm.gain", "lnfw"),
    ("layer_norm.bias", "lnfb"),
];

/// The parameters of `llama`.
pub const LLAMA: &Names = &[
    ("embedding.table", "embed"),
    ("block.rms_norm.gain", "norm1"),
    ("block.grouped_attention.query", "wq"),
    ("block.grouped_attention.key", "wk"),
    ("block.grouped_attention.value", "wv"),
    ("block.grouped_attention.out", "wo"),
    ("block.rms_norm_2.gain", "norm2"),
    ("block.swiglu.gate", "gate"),
    ("block.swiglu.up", "up"),
    ("block.swiglu.down", "down"),
    ("rms_norm.gain", "normf"),
    ("head.w", "head"),
];

/// The parameters of `cnn`.
pub const CNN: &Names = &[
    ("conv2d.kernel", "c1w"),
    ("conv2d.channel_offset.bias", "c1b"),
    ("conv2d_2.kernel", "c2w"),
    ("conv2d_2.channel_offset.bias", "c2b"),
    ("linear.w", "fw"),
    ("linear.offset.bias", "fb"),
];

/// The record of a program: inputs, `init.*`, gradients of the first step `grad.*`, `after10.*`, and losses.
pub struct Golden {
    tensors: BTreeMap<String, (Vec<u64>, Vec<f64>)>,
    /// Before each update.
    pub losses: Vec<f64>,
}

impl Golden {
    /// Reads the record.
    pub fn load(name: &str) -> Self {
        let folder = root().join("tests/golden/torch");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).expect("the golden file can be read");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let shape = |view: &TensorView<'_>| view.shape().iter().map(|&n| n as u64).collect();
        let tensors = file.iter().map(|(name, view)| (name.to_owned(), (shape(&view), numbers(&view)))).collect();
        let losses = std::fs::read_to_string(folder.join("losses.json")).expect("the losses can be read");
        let losses: serde_json::Value = serde_json::from_str(&losses).expect("JSON");
        Self { tensors, losses: crate::traces::numbers(&losses[name]["losses"]) }
    }

    /// Shape and elements of a tensor.
    pub fn tensor(&self, key: &str) -> (&[u64], &[f64]) {
        let (shape, elements) = self.tensors.get(key).unwrap_or_else(|| panic!("the record has no {key}"));
        (shape, elements)
    }

    /// The elements of a tensor.
    pub fn numbers(&self, key: &str) -> &[f64] {
        self.tensor(key).1
    }
}

fn numbers(view: &TensorView<'_>) -> Vec<f64> {
    let data = view.data();
    match view.dtype() {
        Dtype::F64 => data.chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
        Dtype::F32 => data.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()).into()).collect(),
        _ => data.chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f64).collect(),
    }
}
