//! The clauses of the language's blocks: one table for everyone who asks.
//!
//! The parser separates clauses within a line by it, the checker refuses what a block does not have or has once, `--set` and
//! suggestions go by it, and `spec/language.md` prints it. A training method adds its clause to `train`, and a block for
//! what stands in its braces.

/// A block of clauses.
#[derive(Debug)]
pub struct Block {
    /// The word that opens it.
    pub word: &'static str,
    /// What it has.
    pub clauses: &'static [Clause],
}

/// A clause.
#[derive(Debug)]
pub struct Clause {
    /// Its keyword.
    pub word: &'static str,
    /// How it is written.
    pub example: &'static str,
    /// Whether it may stand more than once.
    pub repeats: bool,
    /// Whether `--set` may replace its value.
    pub is_settable: bool,
    /// Whether a block may stand behind it.
    pub has_block: bool,
    /// What kind of clause it is.
    pub kind: Kind,
}

/// What kinds of clauses there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any other.
    Plain,
    /// Says where records are.
    Source,
    /// Says something of records from these sources alone; `""` is no source.
    Of(&'static [&'static str]),
    /// A training method.
    Method,
    /// A training method that this compiler does not have yet.
    ToCome,
}

const fn clause(word: &'static str, example: &'static str) -> Clause {
    Clause { word, example, repeats: false, is_settable: false, has_block: false, kind: Kind::Plain }
}

const fn source(word: &'static str, example: &'static str) -> Clause {
    Clause { kind: Kind::Source, ..clause(word, example) }
}

const fn of(sources: &'static [&'static str], word: &'static str, example: &'static str) -> Clause {
    Clause { kind: Kind::Of(sources), ..clause(word, example) }
}

const fn method(word: &'static str, example: &'static str) -> Clause {
    Clause { kind: Kind::Method, has_block: true, ..clause(word, example) }
}

const fn to_come(word: &'static str) -> Clause {
    Clause { kind: Kind::ToCome, has_block: true, ..clause(word, "") }
}

/// A word of a method that is to come.
const fn word(word: &'static str) -> Clause {
    Clause { has_block: true, ..clause(word, "") }
}

impl Clause {
    const fn repeated(self) -> Clause {
        Clause { repeats: true, ..self }
    }

    const fn settable(self) -> Clause {
        Clause { is_settable: true, ..self }
    }

    const fn with_block(self) -> Clause {
        Clause { has_block: true, ..self }
    }
}

/// Clauses of `train`.
pub static TRAIN: Block = Block {
    word: "train",
    clauses: &[
        clause("model", "model Gpt(vocab = 256, depth = 6)"),
        clause("data", "data Code"),
        clause("loss", "loss cross_entropy(logits, next(tokens))"),
        clause("metric", "metric accuracy(logits, next(tokens))").repeated(),
        clause("optimizer", "optimizer adamw(weight_decay = 0.1)").with_block(),
        clause("filter", "filter lowpass(a = [-0.9], b = [0.1])"),
        clause("group", "group norms, biases { weight_decay = 0 }").repeated().with_block(),
        clause("schedule", "schedule constant(3e-4)"),
        clause("steps", "steps 2000").settable(),
        clause("batch", "batch 16").settable(),
        clause("precision", "precision bf16").settable(),
        clause("seed", "seed 1").settable(),
        clause("clip", "clip 1.0"),
        clause("freeze", "freeze embeddings, \"block.attention.*\"").repeated(),
        clause("evaluate", "evaluate every 200 batches 20"),
        clause("checkpoint", "checkpoint every 500 keep 3"),
        clause("keep", "keep 3"),
        clause("memory", "memory 500 MB"),
        method("private", "private { epsilon 3  clip 1.0 }"),
        to_come("sparsify"),
        to_come("grow"),
        to_come("rates"),
        to_come("select"),
        to_come("unlearn"),
        to_come("finetune"),
    ],
};

/// Clauses of `data`.
pub static DATA: Block = Block {
    word: "data",
    clauses: &[
        source("text", "text \"src/**/*.rs\""),
        source("jsonl", "jsonl \"data/*.jsonl\" member \"text\""),
        source("tokens", "tokens \"train.bin\" width 2"),
        source("csv", "csv \"digits.csv\""),
        source("arrays", "arrays \"digits.npz\""),
        of(&["text", "jsonl"], "tokenizer", "tokenizer bytes"),
        of(&["csv"], "header", "header yes"),
        of(&["csv", "arrays", ""], "field", "field x = columns(0, 64, scale = 1 / 16)").repeated(),
        of(&["text", "jsonl", "tokens", "csv", "arrays"], "shuffle", "shuffle no"),
        clause("split", "split valid = 5%"),
    ],
};

/// Clauses of `private`.
pub static PRIVATE: Block = Block {
    word: "private",
    clauses: &[
        clause("epsilon", "epsilon 3"),
        clause("delta", "delta 1e-5"),
        clause("noise_multiplier", "noise_multiplier 1.1"),
        clause("clip", "clip 1.0"),
        clause("sampling", "sampling poisson"),
        clause("accountant", "accountant pld"),
        clause("records", "records 60000"),
        clause("rows", "rows 64"),
        clause("secure", "secure"),
        clause("filter", "filter lowpass(a = [-0.9], b = [0.1])"),
    ],
};

/// What may stand in the braces of an optimizer.
static OPTIMIZER: Block = Block {
    word: "optimizer",
    clauses: &[clause("group", "group norms, biases { weight_decay = 0 }").repeated().with_block()],
};

/// What may stand in the braces of a group, besides hyperparameters of its optimizer.
static GROUP: Block = Block {
    word: "group",
    clauses: &[clause("rate", "rate = 0.5x"), clause("optimizer", "optimizer sgd"), clause("freeze", "freeze")],
};

static SPARSIFY: Block = Block {
    word: "sparsify",
    clauses: &[
        word("weights"),
        word("activations"),
        word("from"),
        word("until"),
        word("every"),
        word("only"),
        word("except"),
    ],
};

static GROW: Block =
    Block { word: "grow", clauses: &[word("depth"), word("width"), word("init"), word("optimizer"), word("schedule")] };

static RATES: Block =
    Block { word: "rates", clauses: &[word("hessian"), word("groups"), word("every"), word("auto"), word("probe")] };

static SELECT: Block =
    Block { word: "select", clauses: &[word("budget"), word("probe"), word("groups"), word("every"), word("by")] };

static UNLEARN: Block =
    Block { word: "unlearn", clauses: &[word("forget"), word("retain"), word("by"), word("steps")] };

static FINETUNE: Block =
    Block { word: "finetune", clauses: &[word("from"), word("freeze"), word("only"), word("rank")] };

/// A block of which nothing is known.
static OTHER: Block = Block { word: "", clauses: &[] };

/// All blocks.
pub static BLOCKS: [&Block; 11] =
    [&TRAIN, &DATA, &OPTIMIZER, &GROUP, &PRIVATE, &SPARSIFY, &GROW, &RATES, &SELECT, &UNLEARN, &FINETUNE];

impl Block {
    /// The block that a word opens; one without clauses if it opens none.
    pub fn opened_by(word: &str) -> &'static Block {
        BLOCKS.into_iter().find(|block| block.word == word).unwrap_or(&OTHER)
    }

    /// The clause of a keyword.
    pub fn clause(&self, word: &str) -> Option<&'static Clause> {
        self.clauses.iter().find(|clause| clause.word == word)
    }

    /// The keywords of what this compiler has.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().filter(|clause| clause.kind != Kind::ToCome).map(|clause| clause.word)
    }

    /// The clauses whose values `--set` may replace.
    pub fn settable(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().filter(|clause| clause.is_settable).map(|clause| clause.word)
    }
}

/// A good example of a clause, of whatever block.
pub fn example(word: &str) -> Option<&'static str> {
    let examples = BLOCKS.into_iter().filter_map(|block| block.clause(word)).map(|clause| clause.example);
    examples.into_iter().find(|example| !example.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// The table of `spec/language.md`.
    fn page() -> String {
        let mut page =
            "| block | clauses | of these, `--set` changes | to come |\n| --- | --- | --- | --- |\n".to_string();
        for block in
            BLOCKS.into_iter().filter(|block| TRAIN.clause(block.word).is_none_or(|of| of.kind != Kind::ToCome))
        {
            let ticked = |words: Vec<&str>| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ");
            let to_come = block.clauses.iter().filter(|clause| clause.kind == Kind::ToCome).map(|clause| clause.word);
            let (words, settable) = (ticked(block.words().collect()), ticked(block.settable().collect()));
            let to_come = ticked(to_come.collect());
            writeln!(page, "| `{}` | {words} | {settable} | {to_come} |", block.word).expect("a string can grow");
        }
        page
    }

    #[test]
    fn the_page_of_clauses_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/language.md");
        let text = std::fs::read_to_string(path).expect("the specification is there");
        let (before, rest) = text.split_once("<!-- clauses: begin -->\n").expect("a marker");
        let (_, after) = rest.split_once("<!-- clauses: end -->").expect("a marker");
        let current = format!("{before}<!-- clauses: begin -->\n{}<!-- clauses: end -->{after}", page());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &current).expect("spec/ can be written");
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), current, "run with BLESS=1 to write it anew");
    }
}
