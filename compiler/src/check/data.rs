//! The `data` block, and whether it fits the model.

use super::{
    clause::{list_of, word_of},
    evaluator::{Checked, Evaluator, Failed},
    suggest::{closest, listed},
    train::clause_of,
};
use crate::{
    clauses::{self, Kind},
    diagnostic::Diagnostic,
    graph::{NodeId, Op},
    source::Span,
    syntax::tree::{Argument, Clause, ClauseBlock, Expr, ExprKind, Name, Unit, Word},
};
use trainc_kernels::ir::Binary;
use trainc_runtime::artifact::{CsvField, DType, DataSpec, HashField, Source, TokenizerSpec};

/// A data block and where its parts are written.
pub(super) struct Data {
    /// What the runtime is told.
    pub spec: DataSpec,
    /// Fields with their places.
    fields: Vec<Field>,
    span: Span,
}

/// A field of a record.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    /// `None` if only the data knows.
    integers: Option<bool>,
    /// Exclusive bound of the integers, where it is known.
    below: Option<u64>,
    /// Numbers per record, where that is known.
    width: Option<u64>,
    span: Span,
}

impl Evaluator<'_> {
    /// Reads a data block.
    pub(super) fn data(&mut self, index: usize) -> Checked<Data> {
        let block = &self.library.data[index];
        self.known_clauses(block, &clauses::DATA);
        self.open(None, None)?;
        let data = self.read_data(block);
        self.close();
        data
    }

    fn read_data(&mut self, block: &ClauseBlock) -> Checked<Data> {
        let is_source = |clause: &&Clause| {
            clauses::DATA.clause(&clause.keyword.text).is_some_and(|known| known.kind == Kind::Source)
        };
        let sources: Vec<&Clause> = block.clauses.iter().filter(is_source).collect();
        self.clauses_of_source(block, sources.first().copied());
        let read = match &sources[..] {
            [] => self.hashed(block),
            [clause] => self.source(clause, block),
            [_, second, ..] => {
                let error = Diagnostic::error("E0601", second.span, "a data block has one source");
                self.fail(error.also(sources[0].span, "the first one").help("make two data blocks"))
            }
        };
        let valid_fraction = self.held_out(block);
        let shuffle = match clause_of(block, "shuffle") {
            Some(clause) => self.single(clause).and_then(|expr| self.truth_value(expr, "`shuffle`")),
            None => Ok(true),
        };
        let ((source, fields), valid_fraction, shuffle) = (read?, valid_fraction?, shuffle?);
        let name = block.name.as_ref().map_or_else(|| "data".to_string(), |name| name.text.clone());
        let span = block.name.as_ref().map_or(block.span, |name| name.span);
        Ok(Data { spec: DataSpec { name, source, valid_fraction, shuffle }, fields, span })
    }

    /// Complains about clauses that say something of other records than these.
    fn clauses_of_source(&mut self, block: &ClauseBlock, source: Option<&Clause>) {
        let word = source.map_or("", |source| source.keyword.text.as_str());
        for clause in &block.clauses {
            let keyword = clause.keyword.text.as_str();
            let Some(Kind::Of(sources)) = clauses::DATA.clause(keyword).map(|known| known.kind) else { continue };
            if sources.contains(&word) {
                continue;
            }
            let named: Vec<&str> = sources.iter().copied().filter(|source| !source.is_empty()).collect();
            let found = if word.is_empty() { "numbers that are made up".into() } else { format!("`{word}`") };
            let error = Diagnostic::error("E0650", clause.span, format!("`{keyword}` means nothing for {found}"))
                .label(format!("it is for {}", listed(named)))
                .help("remove it");
            self.report(match source {
                Some(source) => error.also(source.keyword.span, "these are the records"),
                None => error,
            });
        }
    }

    fn source(&mut self, clause: &Clause, block: &ClauseBlock) -> Checked<(Source, Vec<Field>)> {
        let (paths, end) = self.paths(clause)?;
        if !["jsonl", "tokens"].contains(&clause.keyword.text.as_str()) {
            self.no_more(clause, end)?;
        }
        match clause.keyword.text.as_str() {
            "text" => {
                let tokenizer = self.tokenizer(block, clause)?;
                let field = token_field(&tokenizer, clause.span);
                Ok((Source::Text { paths, tokenizer }, vec![field]))
            }
            "jsonl" => {
                let [Some(member)] = self.options(clause, end, ["member"])? else {
                    return self.malformed(clause, "expected `member` and its name");
                };
                let member = self.text_value(member)?;
                let tokenizer = self.tokenizer(block, clause)?;
                let field = token_field(&tokenizer, clause.span);
                Ok((Source::Jsonl { paths, member, tokenizer }, vec![field]))
            }
            "tokens" => {
                let [Some(width)] = self.options(clause, end, ["width"])? else {
                    return self.malformed(clause, "expected `width` and the bytes per token");
                };
                let bytes = self.count(width, "the bytes per token", 2.0..=4.0)?;
                if bytes == 3 {
                    return self.fail(
                        Diagnostic::error("E0704", width.span, "tokens have 2 or 4 bytes").help("write `width 2`"),
                    );
                }
                let field =
                    Field { name: "tokens".into(), integers: Some(true), below: None, width: None, span: clause.span };
                Ok((Source::Tokens { paths, width: bytes as u8 }, vec![field]))
            }
            "csv" => self.csv(paths, block),
            _ => self.arrays(paths, clause, block),
        }
    }

    /// The paths behind a keyword, and where they end: words like `width 2` may follow.
    fn paths(&mut self, clause: &Clause) -> Checked<(Vec<String>, usize)> {
        let end = clause.words.iter().position(|word| word_of(word).is_some()).unwrap_or(clause.words.len());
        let Some(items) = list_of(&clause.words[..end]) else {
            return self.malformed(clause, "expected paths in quotes, separated by commas");
        };
        let paths: Checked<Vec<String>> = items.into_iter().map(|item| self.text_value(item)).collect();
        Ok((paths?, end))
    }

    fn tokenizer(&mut self, block: &ClauseBlock, source: &Clause) -> Checked<TokenizerSpec> {
        let Some(clause) = clause_of(block, "tokenizer") else {
            let error = Diagnostic::error("E0602", source.keyword.span, "text needs a tokenizer")
                .help("write `tokenizer bytes`, or `tokenizer \"tokenizer.json\"`");
            return self.fail(error);
        };
        match &clause.words[..] {
            [word] if word_of(word) == Some("bytes") => Ok(TokenizerSpec::Bytes),
            [Word::Value(expr @ Expr { kind: ExprKind::Text(_), .. })] => {
                Ok(TokenizerSpec::HuggingFace { path: self.text_value(expr)? })
            }
            _ => self.malformed(clause, "expected `bytes`, or the path of a `tokenizer.json` in quotes"),
        }
    }

    /// `split valid = 5%`.
    fn held_out(&mut self, block: &ClauseBlock) -> Checked<f64> {
        let Some(clause) = clause_of(block, "split") else { return Ok(0.0) };
        let expr = match &clause.words[..] {
            [Word::Setting(name, expr)] if name.text == "valid" => expr,
            _ => return self.malformed(clause, "expected `valid = 5%`"),
        };
        let number = self.quantity(expr, "the share held out", &[Unit::Percent])?;
        if (0.0..100.0).contains(&number.value) {
            return Ok(number.value / 100.0);
        }
        let error = Diagnostic::error("E0704", expr.span, "the share held out must be at least 0% and below 100%");
        self.fail(error.label(format!("this is {}", number.shown())).help("write for example `split valid = 5%`"))
    }

    fn field_clauses(&mut self, block: &ClauseBlock) -> Checked<Vec<(Name, Expr)>> {
        let mut fields = Vec::new();
        for clause in block.clauses.iter().filter(|clause| clause.keyword.text == "field") {
            let [Word::Setting(name, expr)] = &clause.words[..] else {
                return self.malformed(clause, "expected `name = ...`");
            };
            fields.push((name.clone(), expr.clone()));
        }
        Ok(fields)
    }

    /// The arguments of `columns(0, 64, scale = 2)`, by name; `None` where one is not given.
    fn parts(&mut self, expr: &Expr, word: &str, names: &[&str]) -> Checked<Vec<Option<f64>>> {
        let arguments: &[Argument] = match &expr.kind {
            ExprKind::Call { callee, arguments, .. } if callee.text == word => arguments,
            _ => {
                let error = Diagnostic::error("E0603", expr.span, format!("expected `{word}({})`", names.join(", ")));
                return self.fail(error.label("this data's fields are made this way"));
            }
        };
        let mut values = vec![None; names.len()];
        for (position, argument) in arguments.iter().enumerate() {
            let slot = match &argument.name {
                None => Some(position).filter(|&position| position < names.len()),
                Some(name) => names.iter().position(|known| *known == name.text),
            };
            let Some(slot) = slot else {
                let error = Diagnostic::error("E0212", argument.value.span, format!("`{word}` has no such argument"));
                return self.fail(error.label(format!("it takes {}", listed(names.iter().copied()))).help("remove it"));
            };
            values[slot] = Some(self.quantity(&argument.value, "this", &[Unit::None])?.value);
        }
        Ok(values)
    }

    fn whole_part(&mut self, value: Option<f64>, otherwise: Option<u64>, expr: &Expr, what: &str) -> Checked<u64> {
        match (value, otherwise) {
            (Some(value), _) => self.whole_in(value, expr.span, what, 0.0..=9_007_199_254_740_991.0),
            (None, Some(otherwise)) => Ok(otherwise),
            (None, None) => {
                let error = Diagnostic::error("E0211", expr.span, format!("{what} is missing"));
                self.fail(error.help("give it as an argument"))
            }
        }
    }

    fn csv(&mut self, paths: Vec<String>, block: &ClauseBlock) -> Checked<(Source, Vec<Field>)> {
        let header = match clause_of(block, "header") {
            None => false,
            Some(clause) if clause.words.is_empty() => true,
            Some(clause) => {
                let expr = self.single(clause)?;
                self.truth_value(expr, "`header`")?
            }
        };
        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        for (name, expr) in self.field_clauses(block)? {
            let parts = self.parts(&expr, "columns", &["first", "count", "scale"])?;
            let first = self.whole_part(parts[0], None, &expr, "the first column")?;
            let count = self.whole_part(parts[1], Some(1), &expr, "the number of columns")?;
            columns.push(CsvField { name: name.text.clone(), first, count, scale: parts[2].unwrap_or(1.0) });
            fields.push(Field { name: name.text, integers: None, below: None, width: Some(count), span: name.span });
        }
        self.some_fields(&fields, block)?;
        Ok((Source::Csv { paths, header, fields: columns }, fields))
    }

    fn arrays(&mut self, paths: Vec<String>, clause: &Clause, block: &ClauseBlock) -> Checked<(Source, Vec<Field>)> {
        let [path] = &paths[..] else { return self.malformed(clause, "expected one path") };
        let (mut members, mut fields) = (Vec::new(), Vec::new());
        for (name, expr) in self.field_clauses(block)? {
            let member = match &expr.kind {
                ExprKind::Text(member) => member.clone(),
                _ => {
                    return self.fail(Diagnostic::error("E0603", expr.span, "expected the name of a member in quotes"));
                }
            };
            members.push((name.text.clone(), member));
            fields.push(Field { name: name.text, integers: None, below: None, width: None, span: name.span });
        }
        self.some_fields(&fields, block)?;
        Ok((Source::Arrays { path: path.clone(), fields: members }, fields))
    }

    /// Fields of hashed numbers: `field tokens = hash(stream = 1000, below = 257)`.
    fn hashed(&mut self, block: &ClauseBlock) -> Checked<(Source, Vec<Field>)> {
        let (mut hashed, mut fields) = (Vec::new(), Vec::new());
        for (name, expr) in self.field_clauses(block)? {
            let parts = self.parts(&expr, "hash", &["stream", "below"])?;
            let stream = self.whole_part(parts[0], None, &expr, "the stream")?;
            let below = match parts[1] {
                Some(below) => Some(self.whole_in(below, expr.span, "the bound", 1.0..=2_147_483_647.0)?),
                None => None,
            };
            hashed.push(HashField { name: name.text.clone(), stream, below });
            fields.push(Field {
                name: name.text,
                integers: Some(below.is_some()),
                below,
                width: None,
                span: name.span,
            });
        }
        self.some_fields(&fields, block)?;
        Ok((Source::Hash { fields: hashed }, fields))
    }

    fn some_fields(&mut self, fields: &[Field], block: &ClauseBlock) -> Checked<()> {
        if !fields.is_empty() {
            return Ok(());
        }
        let span = block.name.as_ref().map_or(block.span, |name| name.span);
        let error = Diagnostic::error("E0604", span, "this data has no source or no fields")
            .label("nothing here gives records")
            .help("write for example `text \"src/**/*.rs\"` and `tokenizer bytes`, or `csv \"file.csv\"` with `field` clauses");
        self.fail(error)
    }

    /// Checks that the data gives what the inputs of the model, which is named at `model`, need.
    pub(super) fn data_fits(&mut self, model: Span, data: &Data) -> Checked<()> {
        for (index, input) in self.registry.inputs.clone().into_iter().enumerate() {
            let Some(&node) = self.registry.input_nodes().get(&(index as u32)) else { continue };
            let place = self.input_place(&input.field, model);
            let Some(field) = data.fields.iter().find(|field| field.name == input.field) else {
                self.no_field(&input.field, place, data);
                continue;
            };
            self.field_fits(&input, node, field, place);
        }
        if self.has_errors() { Err(Failed) } else { Ok(()) }
    }

    /// Where an input is declared.
    fn input_place(&self, name: &str, otherwise: Span) -> Span {
        let index = self.registry.inputs.iter().position(|input| input.name == name);
        let node = index.and_then(|index| self.registry.input_nodes().get(&(index as u32)));
        node.and_then(|node| self.graph.node(*node).span).unwrap_or(otherwise)
    }

    fn no_field(&mut self, name: &str, place: Span, data: &Data) {
        let known: Vec<&str> = data.fields.iter().map(|field| field.name.as_str()).collect();
        let error = Diagnostic::error("E0605", place, format!("the data has no field for the input `{name}`"))
            .label("fed by the field of the same name")
            .also(data.span, format!("this data has {}", listed(known.iter().copied())));
        let error = match (closest(name, known.iter().copied()), &known[..]) {
            (Some(other), _) | (None, &[other]) => error.help(format!("call the input `{other}`, or rename the field")),
            _ => error.help(format!("add a field `{name}` to the data")),
        };
        self.report(error);
    }

    fn field_fits(&mut self, input: &crate::program::Input, node: NodeId, field: &Field, place: Span) {
        let name = &input.name;
        let shape = self.graph.shape(node).to_vec();
        let per_sample: u64 = shape[1..].iter().product();
        let mismatch = |id, message: String, inside: String, outside: String| {
            Diagnostic::error(id, place, message).label(inside).also(field.span, outside)
        };
        if field.integers.is_some_and(|integers| integers != (input.dtype == DType::I32)) {
            let kinds = if input.dtype == DType::I32 {
                ("integers", "floating-point numbers")
            } else {
                ("floating-point numbers", "integers")
            };
            let error = mismatch(
                "E0606",
                format!("`{name}` takes {}, the data gives {}", kinds.0, kinds.1),
                "the input".into(),
                "the field".into(),
            );
            let help = if input.dtype == DType::I32 {
                "give the field a bound: `hash(stream, below = 10)`"
            } else {
                "declare the input as `int[...]`"
            };
            return self.report(error.help(help));
        }
        if let Some(width) = field.width.filter(|width| *width != per_sample) {
            let error = mismatch(
                "E0607",
                format!("`{name}` takes {per_sample} numbers per sample, the data gives {width}"),
                format!("{per_sample} numbers"),
                format!("{width} columns"),
            );
            return self.report(error.help("make the number of columns and the input's dims equal"));
        }
        if let (Some(below), Some(bound)) = (field.below, input.below)
            && below > bound
        {
            let error = mismatch(
                "E0608",
                format!("the data gives integers up to {}, the model takes them up to {}", below - 1, bound - 1),
                format!("used to choose among {bound}"),
                format!("{below} different values"),
            );
            self.report(error.help(format!("make the model's vocabulary at least {below}")));
        }
    }

    /// Finds the exclusive bounds of integer inputs: rows of the tables that they are looked up in, and numbers of
    /// classes that they are compared with.
    pub(super) fn bound_inputs(&mut self) {
        let nodes: Vec<(u32, NodeId)> =
            self.registry.input_nodes().iter().map(|(index, node)| (*index, *node)).collect();
        for (index, node) in nodes {
            if self.registry.inputs[index as usize].dtype == DType::I32 {
                let bound = self.bound(node);
                self.registry.inputs[index as usize].below = bound;
            }
        }
    }

    fn bound(&self, node: NodeId) -> Option<u64> {
        let users = self.graph.users(node);
        let bounds = users.into_iter().filter_map(|user| {
            let operands = self.graph.operands(user);
            match &self.graph.node(user).op {
                Op::Gather if operands[1] == node => self.graph.shape(operands[0]).first().copied(),
                Op::Broadcast { .. } | Op::Reshape { .. } | Op::Permute { .. } => self.bound(user),
                Op::Binary(Binary::Equal) => {
                    operands.iter().find(|&&other| other != node).and_then(|&other| self.classes(other))
                }
                _ => None,
            }
        });
        bounds.min()
    }

    /// Extent of the positions that a node holds, if it holds positions.
    fn classes(&self, node: NodeId) -> Option<u64> {
        match &self.graph.node(node).op {
            Op::Iota { axis, shape } => Some(shape[*axis]),
            Op::Broadcast { .. } | Op::Reshape { .. } | Op::Permute { .. } => {
                self.classes(self.graph.operands(node)[0])
            }
            _ => None,
        }
    }
}

fn token_field(tokenizer: &TokenizerSpec, span: Span) -> Field {
    let below = matches!(tokenizer, TokenizerSpec::Bytes).then_some(256);
    Field { name: "tokens".into(), integers: Some(true), below, width: None, span }
}
