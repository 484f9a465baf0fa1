//! What can be said of a program's names without running it: unknown ones, and ones that nothing uses.

use super::{
    builtin,
    library::{Library, unknown_name},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Clause, Definition, DefinitionKind, Dim, Expr, ExprKind, IndexEntry, Name, Statement, Word},
};
use std::collections::BTreeSet;

/// Findings about the names in the program's own files.
pub(super) fn findings(library: &Library) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let mut blocks = Names::default();
    library.trains.iter().chain(&library.data).for_each(|block| blocks.clauses(&block.clauses));
    let mut mentioned = blocks.used;
    for definition in &library.definitions {
        if library.is_std(definition.name.span.file) {
            continue;
        }
        let mut names = Names::of(definition);
        names.definition(definition);
        findings.extend(names.unknown(library));
        if definition.kind == DefinitionKind::Model {
            // The loss and the metrics see a model's inputs.
            names.used.extend(mentioned.iter().cloned());
        }
        findings.extend(names.unused(definition));
        mentioned.append(&mut names.used);
    }
    let mut names = Names::default();
    library.consts.iter().for_each(|constant| names.expression(&constant.value));
    mentioned.append(&mut names.used);
    findings.extend(unused_constants(library, &mentioned));
    findings
}

/// The names that an expression mentions, sorted.
pub(super) fn mentioned(expr: &Expr) -> BTreeSet<String> {
    let mut names = Names::default();
    names.expression(expr);
    names.used
}

/// Where statements first mention a name.
pub(super) fn first_mention(statements: &[Statement], name: &str) -> Option<Span> {
    let mut names = Names::default();
    names.body(statements);
    names.places.into_iter().find(|(mentioned, _)| mentioned == name).map(|(_, span)| span)
}

fn unused_constants(library: &Library, mentioned: &BTreeSet<String>) -> Vec<Diagnostic> {
    let own = library.consts.iter().filter(|constant| !library.is_std(constant.name.span.file));
    own.filter(|constant| !mentioned.contains(&constant.name.text))
        .map(|constant| unused("the constant", &constant.name))
        .collect()
}

fn unused(what: &str, name: &Name) -> Diagnostic {
    Diagnostic::warning("W0201", name.span, format!("{what} `{}` is never used", name.text))
        .label("nothing reads it")
        .help("remove it, or use it")
}

/// Names of one definition.
#[derive(Default)]
struct Names {
    /// Defined anywhere in it.
    defined: BTreeSet<String>,
    /// Read somewhere, with one place each for those that are not between brackets.
    used: BTreeSet<String>,
    places: Vec<(String, Span)>,
}

impl Names {
    /// The names that a definition defines.
    fn of(definition: &Definition) -> Names {
        let mut names = Names::default();
        let given: &[&str] = match definition.kind {
            DefinitionKind::Optimizer => &["p", "grad", "raw", "noise", "rate", "t", "T"],
            DefinitionKind::Filter => &["p", "grad", "rate", "t", "T"],
            DefinitionKind::Schedule => &["t", "T"],
            _ => &[],
        };
        names.defined.extend(given.iter().map(|name| name.to_string()));
        for parameter in &definition.parameters {
            names.defined.insert(parameter.name.text.clone());
            for dim in parameter.tensor.iter().flat_map(|tensor| &tensor.dims) {
                if let Dim::Size(Expr { kind: ExprKind::Name(name), .. }) = dim {
                    names.defined.insert(name.clone());
                }
            }
        }
        names.define(&definition.body);
        names
    }

    fn define(&mut self, body: &[Statement]) {
        for statement in body {
            match statement {
                Statement::Input { name, .. }
                | Statement::Param { name, .. }
                | Statement::State { name, .. }
                | Statement::Output { name, .. } => drop(self.defined.insert(name.text.clone())),
                Statement::Assign { targets, .. } => self.defined.extend(targets.iter().map(|name| name.text.clone())),
                Statement::Repeat { body, .. } => self.define(body),
                Statement::Update { .. }
                | Statement::Sample { .. }
                | Statement::Optimize(_)
                | Statement::Require { .. }
                | Statement::Result(_) => {}
            }
        }
    }

    fn definition(&mut self, definition: &Definition) {
        for parameter in &definition.parameters {
            parameter.default.iter().for_each(|default| self.expression(default));
            parameter.tensor.iter().for_each(|tensor| self.dims(&tensor.dims));
        }
        self.dims(definition.result.as_deref().unwrap_or_default());
        self.body(&definition.body);
    }

    fn body(&mut self, body: &[Statement]) {
        for statement in body {
            match statement {
                Statement::Input { tensor, .. } => self.dims(&tensor.dims),
                Statement::Param { dims, init, .. } => {
                    self.dims(dims);
                    self.expression(init);
                }
                Statement::State { count, dims, init, .. } => {
                    count.iter().for_each(|count| self.expression(count));
                    self.dims(dims.as_deref().unwrap_or_default());
                    self.expression(init);
                }
                Statement::Assign { value, .. } | Statement::Output { value, .. } | Statement::Result(value) => {
                    self.expression(value);
                }
                Statement::Update { position, value, .. } => {
                    position.iter().for_each(|position| self.expression(position));
                    self.expression(value);
                }
                Statement::Sample { value, .. } => self.expression(value),
                Statement::Require { condition, .. } => self.expression(condition),
                Statement::Optimize(_) => {}
                Statement::Repeat { count, body, .. } => {
                    self.expression(count);
                    self.body(body);
                }
            }
        }
    }

    fn dims(&mut self, dims: &[Dim]) {
        for dim in dims {
            if let Dim::Size(expr) = dim {
                self.expression(expr);
            }
        }
    }

    fn mention(&mut self, name: &str, span: Span) {
        self.used.insert(name.to_string());
        self.places.push((name.to_string(), span));
    }

    fn expression(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Name(name) => self.mention(name, expr.span),
            ExprKind::Call { callee, arguments, .. } => {
                self.mention(&callee.text, callee.span);
                for argument in arguments {
                    let is_index = callee.text == "index" && matches!(argument.value.kind, ExprKind::Name(_));
                    if !is_index {
                        self.expression(&argument.value);
                    }
                }
            }
            ExprKind::Index { base, entries } => {
                self.expression(base);
                entries.iter().for_each(|entry| self.entry(entry));
            }
            ExprKind::Arrange { value, .. } | ExprKind::Unary(_, value) | ExprKind::Group(value) => {
                self.expression(value)
            }
            ExprKind::Binary(_, a, b) => [a, b].into_iter().for_each(|side| self.expression(side)),
            ExprKind::If { condition, then, otherwise } => {
                [condition, then, otherwise].into_iter().for_each(|part| self.expression(part));
            }
            ExprKind::Tuple(parts) | ExprKind::List(parts) => parts.iter().for_each(|part| self.expression(part)),
            ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Missing => {}
        }
    }

    /// Between brackets a name may be an index, which needs no definition; it still counts as used.
    fn entry(&mut self, entry: &IndexEntry) {
        let IndexEntry::Position(expr) = entry else { return };
        let mut inner = Names::default();
        inner.expression(expr);
        self.used.append(&mut inner.used);
    }

    fn clauses(&mut self, clauses: &[Clause]) {
        for clause in clauses {
            for word in &clause.words {
                match word {
                    Word::Value(expr) | Word::Setting(_, expr) => self.expression(expr),
                    Word::Mark(..) => {}
                }
            }
            self.clauses(clause.block.as_deref().unwrap_or_default());
        }
    }

    fn unknown(&self, library: &Library) -> Vec<Diagnostic> {
        let builtins = builtin::names();
        let locals: Vec<String> = self.defined.iter().cloned().collect();
        self.places
            .iter()
            .filter(|(name, span)| {
                !self.defined.contains(name)
                    && library.find(name, span.file).is_none()
                    && !builtins.contains(&name.as_str())
            })
            .map(|(name, span)| unknown_name(library, name, *span, &locals, &builtins))
            .collect()
    }

    fn unused(&self, definition: &Definition) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        for parameter in &definition.parameters {
            let updates = matches!(definition.kind, DefinitionKind::Optimizer | DefinitionKind::Filter);
            let is_matrix = updates && parameter.tensor.is_some();
            if !is_matrix && !self.is_used(&parameter.name) {
                findings.push(unused("the parameter", &parameter.name));
            }
        }
        self.unused_in(&definition.body, &mut findings);
        findings
    }

    fn unused_in(&self, body: &[Statement], findings: &mut Vec<Diagnostic>) {
        for statement in body {
            match statement {
                Statement::Input { name, .. } if !self.is_used(name) => findings.push(unused("the input", name)),
                Statement::Assign { targets, .. } => {
                    findings.extend(
                        targets.iter().filter(|name| !self.is_used(name)).map(|name| unused("the value", name)),
                    );
                }
                Statement::Repeat { body, .. } => self.unused_in(body, findings),
                _ => {}
            }
        }
    }

    fn is_used(&self, name: &Name) -> bool {
        self.used.contains(&name.text) || name.text.starts_with('_')
    }
}
