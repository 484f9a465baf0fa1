//! Layers, losses and optimizers of the standard library by themselves: a small program for each.

/// A model, its loss (and metrics), and how it is trained.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// For messages.
    pub name: &'static str,
    model: &'static str,
    loss: &'static str,
}

/// What no larger program singles out, and what each definition of the library needs to be named at least once.
pub const LAYERS: &[Layer] = &[
    Layer {
        name: "convolution",
        model: "input x: [batch, 2, 6, 6]\n    output z = flatten(tanh(conv2d(x, 3)))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "strided and padded convolution",
        model: "input x: [batch, 2, 7, 7]\n    output z = flatten(tanh(conv2d(x, 3, stride = 2, padding = 1)))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "pooling",
        model: "input x: [batch, 1, 8, 8]\n    output z = flatten(average_pool(max_pool(conv2d(x, 2, padding = 1))))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "pooling of whole images",
        model: "input x: [batch, 2, 6, 6]\n    output z = global_average_pool(silu(conv2d(x, 3, bias = no)))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "linear map and squared error",
        model: "input x: [batch, 5]\n    input y: [batch, 2]\n    output z = linear(relu(linear(x, 6, bias = no)), 2)",
        loss: "mse(z, y)",
    },
    Layer {
        name: "binary cross entropy",
        model: "input x: [batch, 5]\n    input y: [batch, 2]\n    output z = linear(x, 2)",
        loss: "binary_cross_entropy(z, y)\n    metric binary_accuracy(z, y)",
    },
    Layer {
        name: "cross entropy",
        model: "input x: [batch, 5]\n    input y: int[batch]\n    output z = linear(sigmoid(linear(x, 6)), 4)",
        loss: "cross_entropy(z, y)\n    metric accuracy(z, y)\n    metric perplexity(z, y)",
    },
    Layer {
        name: "cross entropy with smoothing",
        model: "input x: [batch, 5]\n    input y: int[batch]\n    output z = linear(x, 4)",
        loss: "cross_entropy(z, y, smoothing = 0.2)",
    },
    Layer {
        name: "cross entropy without one class",
        model: "input x: [batch, 5]\n    input y: int[batch]\n    output z = linear(x, 4)",
        loss: "cross_entropy(z, y, ignore = 0)",
    },
    Layer {
        name: "likelihoods",
        model: "input x: [batch, 5]\n    output z = log_softmax[c](linear(softmax[c](linear(x, 4, init = normal(1))[b, c]), 3, init = normal(1))[b, c])",
        loss: "mean(z^2)",
    },
    Layer {
        name: "norms",
        model: "input x: [batch, 3, 6]\n    output z = rms_norm(linear(layer_norm(x), 6))",
        loss: "mean(z^2 * z)",
    },
    Layer {
        name: "dropout",
        model: "input x: [batch, 6]\n    output z = dropout(relu2(linear(x, 8)), 0.25)",
        loss: "mean(z^2)",
    },
    Layer {
        name: "tables of tokens and positions",
        model: "input tokens: int[batch, 5]\n    output z = head(embedding(tokens, 7, 8) + positions(5, 8), 7)",
        loss: "cross_entropy(z, next(tokens))",
    },
    Layer {
        name: "sliding-window attention",
        model: "input x: [batch, 6, 8]\n    output z = attention(x, 2, window = 3, rotate = rope, init = normal(0.4))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "full attention",
        model: "input x: [batch, 5, 8]\n    output z = attention(x, 4, full, init = normal(0.4))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "attention with shared keys",
        model: "input x: [batch, 5, 16]\n    output z = grouped_attention(x, 4, 2, rotate = rope, init = normal(0.3))",
        loss: "mean(z^2)",
    },
    Layer {
        name: "gated and plain feed-forward",
        model: "input x: [batch, 3, 4]\n    output z = swiglu(ffn(x, act = gelu_exact, init = normal(0.5)), 5, init = normal(0.5))",
        loss: "mean(z^2)",
    },
];

/// Rows of a batch.
pub const ROWS: usize = 4;

impl Layer {
    /// The program: plain gradient descent at a constant rate.
    pub fn program(&self, rate: f64) -> String {
        let Layer { model, loss, .. } = self;
        format!(
            "use std\n\nmodel Net() {{\n    {model}\n}}\n\ntrain {{\n    model Net()\n    loss {loss}\n    optimizer sgd\n    \
             schedule constant({rate:?})\n    steps 8  batch {ROWS}\n}}\n"
        )
    }
}
