//! Random programs that are right: small models of the library's layers and of index notation, with odd extents, for
//! comparing compiled code with the reference interpreter.
//!
//! A program is drawn from a seed alone, so that a failure can be repeated by its number.

use trainc_runtime::data::hash;

/// A source of choices, from the documented hash.
struct Draw {
    seed: u64,
    drawn: u64,
}

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        (hash(self.seed, self.drawn) >> 16) % bound
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An extent that no vector or block size divides, mostly.
    fn extent(&mut self) -> u64 {
        [1, 2, 3, 5, 7, 9, 11, 13, 17, 19, 33][self.below(11) as usize]
    }
}

/// A model under construction: inputs and parameters before statements.
struct Model {
    draw: Draw,
    /// Declarations and statements, in order.
    lines: Vec<String>,
    /// Parameters declared by the model itself.
    own: usize,
}

impl Model {
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Declares a parameter, and names it.
    fn parameter(&mut self, dims: &str) -> String {
        self.own += 1;
        let name = format!("w{}", self.own);
        self.line(format!("param {name}: [{dims}] ~ normal(0.3)"));
        name
    }
}

const SMOOTH: &[&str] = &["gelu", "silu", "sigmoid", "tanh", "softplus", "gelu_exact"];
const ACTIVATIONS: &[&str] = &["gelu", "silu", "sigmoid", "tanh", "relu", "relu2", "identity"];
const NORMS: &[&str] = &["layer_norm", "rms_norm"];

/// The program of this number.
pub fn program(seed: u64) -> String {
    let draw = Draw { seed, drawn: 0 };
    let mut model = Model { draw, lines: Vec::new(), own: 0 };
    let loss = match seed % 3 {
        0 => sequence(&mut model),
        1 => features(&mut model),
        _ => images(&mut model),
    };
    let training = training(&mut model.draw);
    let body: String = model.lines.iter().map(|line| format!("    {line}\n")).collect();
    format!("use std\n\nmodel Drawn() {{\n{body}}}\n\ntrain {{\n    model Drawn()\n    {loss}\n{training}}}\n")
}

/// A network on rows of numbers. Returns the loss, as the other kinds do.
fn features(model: &mut Model) -> String {
    let mut width = model.draw.extent();
    model.line(format!("input x: [batch, {width}]"));
    for _ in 0..2 + model.draw.below(3) {
        width = row_layer(model, width);
    }
    ending(model, "x", width)
}

/// A statement on `x: [b, width]`; returns the new width.
fn row_layer(model: &mut Model, width: u64) -> u64 {
    let next = model.draw.extent();
    let act = model.draw.pick(ACTIVATIONS);
    match model.draw.below(8) {
        0 => model.line(format!("x = {act}(linear(x, {next}, init = normal(0.4)))")),
        1 => {
            let w = model.parameter(&format!("{next} | {width}"));
            model.line(format!("x = sum[i](x[b, i] * {w}[o, i])"));
        }
        2 => {
            let w = model.parameter(&format!("{next} | {width}, {width}"));
            model.line(format!("x = sum[i, j](x[b, i] * x[b, j] * {w}[o, i, j])"));
        }
        3 => {
            model.line("square = mean[i](x[b, i]^2)");
            model.line("x = softmax[i](x[b, i]) + x[b, i] * square[b]");
            return width;
        }
        4 => {
            let gate = model.draw.pick(SMOOTH);
            model.line(format!("x = dropout(x, 0) * {gate}(x)"));
            return width;
        }
        _ => {
            channel_mixing(model);
            return width;
        }
    }
    next
}

/// A residual feed-forward network on `x: [.., d]`, once or repeated.
fn channel_mixing(model: &mut Model) {
    let (norm, hidden) = (model.draw.pick(NORMS), model.draw.extent());
    let layer = match model.draw.below(3) {
        0 => format!("swiglu({norm}(x), hidden = {hidden}, init = normal(0.3))"),
        1 => format!("ffn(x, hidden = {hidden}, act = {}, bias = no, init = normal(0.2))", model.draw.pick(SMOOTH)),
        _ => format!("ffn({norm}(x), hidden = {hidden}, act = {}, init = normal(0.3))", model.draw.pick(ACTIVATIONS)),
    };
    residual(model, &[layer]);
}

/// `x = x + layer` for each of the layers, once or in a repeat.
fn residual(model: &mut Model, layers: &[String]) {
    let depth = model.draw.below(4);
    if depth < 2 {
        layers.iter().for_each(|layer| model.line(format!("x = x + {layer}")));
        return;
    }
    model.line(format!("repeat {depth} {{"));
    layers.iter().for_each(|layer| model.line(format!("    x = x + {layer}")));
    model.line("}");
}

/// A transformer on tokens.
fn sequence(model: &mut Model) -> String {
    let (vocab, context) = (5 + model.draw.extent(), 1 + model.draw.extent());
    let (groups, per_group) = (1 + model.draw.below(2), 1 + model.draw.below(2));
    let heads = groups * per_group;
    let width = heads * (2 + 2 * model.draw.below(4));
    model.line(format!("input tokens: int[batch, {context}]"));
    model.line(format!("x = embedding(tokens, {vocab}, {width}, init = normal(0.5))"));
    if model.draw.below(2) == 0 {
        model.line(format!("x = x + positions({context}, {width}, init = normal(0.3))"));
    }
    let attention = attention(&mut model.draw, heads, groups, context);
    residual(model, &[attention]);
    channel_mixing(model);
    let norm = model.draw.pick(NORMS);
    model.line(format!("output logits = head({norm}(x), {vocab}, init = normal(0.3))"));
    let smoothing = model.draw.pick(&["", ", smoothing = 5%", ", ignore = 2"]);
    format!("loss cross_entropy(logits, next(tokens){smoothing})")
}

/// Without biases: the gradient of a key's bias is exactly 0, and Adam turns the last bits of f32 into whole updates.
fn attention(draw: &mut Draw, heads: u64, groups: u64, context: u64) -> String {
    let mask = draw.pick(&["causal", "full"]);
    let rotate = draw.pick(&["", ", rotate = rope"]);
    let window = match draw.below(3) {
        0 => format!(", window = {}", 1 + draw.below(context)),
        _ => String::new(),
    };
    let norm = draw.pick(NORMS);
    match draw.below(2) {
        0 => format!("attention({norm}(x), {heads}, {mask}{window}{rotate}, bias = no, init = normal(0.4))"),
        _ => format!("grouped_attention({norm}(x), {heads}, {groups}, {mask}{window}{rotate}, init = normal(0.4))"),
    }
}

/// A convolutional network on small images.
fn images(model: &mut Model) -> String {
    let mut shape = [1 + model.draw.below(3), 4 + model.draw.below(7), 4 + model.draw.below(7)];
    let [c, h, w] = shape;
    model.line(format!("input x: [batch, {c}, {h}, {w}]"));
    for _ in 0..1 + model.draw.below(2) {
        shape = convolution(model, shape);
        shape = pooling(model, shape);
    }
    let [c, h, w] = shape;
    match model.draw.below(2) {
        0 => {
            model.line("y = global_average_pool(x)");
            ending(model, "y", c)
        }
        _ => {
            model.line("y = flatten(x)");
            ending(model, "y", c * h * w)
        }
    }
}

fn convolution(model: &mut Model, [_, h, w]: [u64; 3]) -> [u64; 3] {
    let (channels, size) = (1 + model.draw.below(7), 1 + 2 * model.draw.below(2));
    let (padding, stride) = (size / 2, 1 + model.draw.below(2));
    let act = model.draw.pick(SMOOTH);
    model.line(format!("x = {act}(conv2d(x, {channels}, size = {size}, stride = {stride}, padding = {padding}))"));
    let out = |extent: u64| (extent + 2 * padding - size) / stride + 1;
    [channels, out(h), out(w)]
}

fn pooling(model: &mut Model, [c, h, w]: [u64; 3]) -> [u64; 3] {
    let pool = model.draw.pick(&["max_pool", "average_pool", ""]);
    if h.min(w) < 2 || pool.is_empty() {
        return [c, h, w];
    }
    model.line(format!("x = {pool}(x)"));
    [c, (h - 2) / 2 + 1, (w - 2) / 2 + 1]
}

/// The last layer on `[b, width]`, its target, and the loss.
fn ending(model: &mut Model, last: &str, width: u64) -> String {
    let classes = 2 + model.draw.extent();
    let outputs = format!("linear({last}, {classes}, init = normal({}))", 1.0 / (width as f64).sqrt());
    let regression = model.draw.below(2) == 0;
    let target = if regression { format!("[batch, {classes}]") } else { "int[batch]".into() };
    model.line(format!("input target: {target}"));
    model.line(format!("output y = {outputs}"));
    match regression {
        true => format!("loss {}(y, target)", model.draw.pick(&["mse", "binary_cross_entropy"])),
        false => format!("loss cross_entropy(y, target{})", model.draw.pick(&["", ", smoothing = 10%"])),
    }
}

/// Optimizer, schedule, sizes, filter.
fn training(draw: &mut Draw) -> String {
    let optimizers = [
        ("sgd(weight_decay = 0.1)", "0.1"),
        ("momentum(beta = 0.8)", "0.1"),
        ("nesterov", "0.05"),
        ("adamw(betas = (0.8, 0.9), weight_decay = 0.1)", "0.01"),
        ("lion", "0.01"),
        ("muon", "0.01"),
        ("nsgd", "0.02"),
        ("adafactor", "0.01"),
    ];
    let (optimizer, peak) = optimizers[draw.below(optimizers.len() as u64) as usize];
    let schedule = draw
        .pick(&[
            "constant(PEAK)",
            "linear_decay(peak = PEAK, warmup = 2 steps)",
            "cosine(peak = PEAK, floor = 0.1)",
            "wsd(peak = PEAK, warmup = 20%, decay = 30%)",
            "inverse_sqrt(peak = PEAK)",
        ])
        .replace("PEAK", peak);
    let clip = draw.pick(&["", "    clip 0.5\n"]);
    let batch = draw.extent();
    let filter = draw.pick(&[
        "",
        "",
        "    filter lowpass(order = 2)\n",
        "    filter kalman(kappa = 0.6)\n",
        "    filter kalman(kappa = 0.5, gamma = 1)\n",
        "    filter kalman(kappa = 0.7, gamma = -1)\n",
    ]);
    format!("    optimizer {optimizer}\n    schedule {schedule}\n{clip}{filter}    steps 10  batch {batch}  seed 3\n")
}
