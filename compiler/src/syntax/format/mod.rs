//! The formatter: prints a tree in the one layout that all programs share.
//!
//! Four spaces for each level, one space around operators, at most one blank line where the text has some, lines of at most
//! 120 characters as far as brackets and operators allow. Clauses that stand on one line stay on one line. Comments are not
//! part of the tree; each is printed at the first place at or behind its own where a line may end, in front of what it
//! stood in front of, or behind what it stood behind.

mod comments;
mod expression;
mod flat;

use super::lex::{Lexed, lex};
use super::token::{Kind, Symbol};
use super::tree::{Clause, ClauseBlock, Definition, DefinitionKind, Dim, Expr, ExprKind, Item, Name, Statement, Word};
use super::{Parsed, parse};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};
use crate::stack::with_large_stack;
use comments::Comments;
use flat::{Line, flat, quoted};

/// Longest line, as far as a program can be broken into lines.
const WIDTH: usize = 120;

/// Prints a program anew. `format(format(x)) = format(x)`, and the tree of the result is the tree of the text.
///
/// # Errors
/// What [`parse`] says about the text: a program that is not understood is not touched.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    with_large_stack(|| format_here(text))
}

fn format_here(text: &str) -> Result<String, Vec<Diagnostic>> {
    let Parsed { file, errors } = parse(FileId::default(), text);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut printer = Printer::new(text, lex(FileId::default(), text));
    for item in &file.items {
        printer.item(item);
    }
    printer.comments_before(text.len() as u32 + 1);
    Ok(printer.out)
}

/// Prints line by line: an element of a line announces where it begins in the text, writes itself, and ends where it ends.
struct Printer<'a> {
    out: String,
    /// Characters of the line that is being written.
    column: usize,
    level: usize,
    comments: Comments<'a>,
    /// Where the `{` are.
    braces: Vec<u32>,
    /// Place in the text up to which everything is printed.
    done: u32,
    /// Whether nothing is printed in this block yet.
    first: bool,
}

impl<'a> Printer<'a> {
    fn new(text: &'a str, lexed: Lexed) -> Self {
        let brace = |kind| kind == Kind::Symbol(Symbol::OpenBrace);
        let braces = lexed.tokens.iter().filter(|token| brace(token.kind)).map(|token| token.start).collect();
        let comments = Comments::new(text, lexed.comments);
        Printer { out: String::new(), column: 0, level: 0, comments, braces, done: 0, first: true }
    }

    fn push(&mut self, text: &str) {
        if self.column == 0 && !text.is_empty() {
            self.column = 4 * self.level;
            self.out.push_str(&" ".repeat(self.column));
        }
        self.column += text.chars().count();
        self.out.push_str(text);
    }

    fn end_line(&mut self) {
        if self.column > 0 {
            self.out.push('\n');
            self.column = 0;
        }
    }

    /// Room for a piece of text with up to `behind` characters behind it.
    fn room(&self, behind: usize) -> usize {
        WIDTH.saturating_sub(self.column.max(4 * self.level) + behind)
    }

    /// Ends the line and keeps one blank line, if the text has some before `place`.
    fn new_line(&mut self, place: u32) {
        self.end_line();
        if !self.first && self.comments.blank_between(self.done, place) {
            self.out.push('\n');
        }
        self.first = false;
        self.done = self.done.max(place);
    }

    /// Prints the comments that stand before a place, each on a line of its own.
    fn comments_before(&mut self, place: u32) {
        while let Some((comment, span)) = self.comments.before(place) {
            self.new_line(span.start);
            self.push(comment);
            self.end_line();
            self.done = self.done.max(span.end);
        }
    }

    /// Prints the comment that stands behind `place` on its line and before `until`, and ends the line.
    fn end_with_comment(&mut self, place: u32, until: u32) {
        self.done = self.done.max(place);
        if let Some((comment, span)) = self.comments.trailing(place, until) {
            self.push("  ");
            self.push(comment);
            self.done = self.done.max(span.end);
        }
        self.end_line();
    }

    /// Begins an element that has a line of its own.
    fn begin(&mut self, place: u32) {
        self.comments_before(place);
        self.new_line(place);
    }

    /// Ends an element that has a line of its own; comments inside it that found no place are printed behind it.
    fn end(&mut self, place: u32) {
        self.end_with_comment(place, u32::MAX);
        self.comments_before(place);
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Use(import) => {
                self.begin(import.span.start);
                let path = &import.path;
                let bare = path.split('.').all(is_name);
                self.push(&if bare { format!("use {path}") } else { format!("use {}", quoted(path)) });
                self.end(import.span.end);
            }
            Item::Const(constant) => {
                self.begin(constant.name.span.start);
                self.push(&format!("const {} = ", constant.name.text));
                self.expr(&constant.value);
                self.end(constant.value.span.end);
            }
            Item::Definition(definition) => self.definition(definition),
            Item::Data(block) => self.clause_block("data", block),
            Item::Train(block) => self.clause_block("train", block),
        }
    }

    fn definition(&mut self, definition: &Definition) {
        let Definition { kind, name, axes, parameters, result, roles, body, short, span } = definition;
        self.begin(span.start);
        self.push(&format!("{} {}", kind_word(*kind), flat::call_head(name, axes)));
        let header = Span { end: name.span.end, ..*span };
        let behind = header_end(result.as_deref(), roles);
        self.list(
            "(",
            parameters,
            ")",
            self.header_span(header, *short, body),
            behind.len() + 1,
            Line::parameter,
            |p, it| p.parameter(it),
        );
        self.push(&behind);
        match &body[..] {
            [Statement::Result(value)] if *short => {
                self.short_body(value);
                self.end(value.span.end);
            }
            _ => self.body(body, self.brace_after(name.span.end), span.end),
        }
    }

    /// `= value`, the value on the next line if that saves it from being broken.
    fn short_body(&mut self, value: &Expr) {
        let fits = |room: usize| flat(room, |line| line.expr(value)).is_some();
        let below = !fits(self.room(2)) && fits(WIDTH - 4 * (self.level + 1) - 2) && !self.comments.inside(value.span);
        self.push(if below { "=" } else { "= " });
        if below {
            self.end_line();
        }
        self.level += usize::from(below);
        self.expr(value);
        self.level -= usize::from(below);
    }

    /// From the name to where the body begins.
    fn header_span(&self, header: Span, short: bool, body: &[Statement]) -> Span {
        let end = match body {
            [Statement::Result(value)] if short => value.span.start,
            _ => self.brace_after(header.end),
        };
        Span { end, ..header }
    }

    /// Where the next `{` is: expressions have none, so it opens the body of the header that ends at `place`.
    fn brace_after(&self, place: u32) -> u32 {
        let next = self.braces.partition_point(|&brace| brace < place);
        self.braces.get(next).copied().unwrap_or(place)
    }

    /// Prints `{ lines }`, from the place of the `{` to the place behind the `}`.
    fn lines(&mut self, open: u32, close: u32, empty: bool, print: impl FnOnce(&mut Self)) {
        self.push("{");
        let brace = Span { end: close, ..Span { file: FileId::default(), start: open, end: open } };
        if empty && !self.comments.inside(brace) {
            self.push("}");
            return;
        }
        self.end_with_comment(open + 1, u32::MAX);
        self.level += 1;
        self.first = true;
        print(self);
        self.comments_before(close.saturating_sub(1));
        self.level -= 1;
        self.first = false;
        self.end_line();
        self.push("}");
    }

    fn body(&mut self, body: &[Statement], open: u32, close: u32) {
        self.lines(open, close, body.is_empty(), |printer| printer.statements(body));
        self.end(close);
    }

    fn statements(&mut self, body: &[Statement]) {
        let mut rest = body;
        while let [first, more @ ..] = rest {
            let joined = more.iter().scan(first, |last, next| self.joins(last, next).then(|| *last = next)).count();
            let (line, after) = rest.split_at(joined + 1);
            self.statement_line(line);
            rest = after;
        }
    }

    /// Whether two declarations stood on one line, as in `state m = 0, v = 0`.
    fn joins(&self, last: &Statement, next: &Statement) -> bool {
        let alike = matches!(
            (last, next),
            (Statement::Input { .. }, Statement::Input { .. }) | (Statement::State { .. }, Statement::State { .. })
        );
        alike && self.comments.same_line(statement_end(last), statement_start(next))
    }

    fn statement_line(&mut self, line: &[Statement]) {
        let place = statement_start(&line[0]);
        self.begin(place);
        let text = flat(self.room(0), |out| {
            out.push(if matches!(line[0], Statement::State { .. }) { "state " } else { "input " })?;
            out.list(line, declaration)
        });
        match (line, text) {
            ([single], _) => self.statement(single),
            (_, Some(text)) => {
                self.push(&text);
                self.end(statement_end(&line[line.len() - 1]));
            }
            (_, None) => line.iter().for_each(|single| {
                self.begin(statement_start(single));
                self.statement(single);
            }),
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Input { name, tensor } => {
                self.push(&format!("input {}: ", name.text));
                self.push(&text_of(|line| line.tensor(tensor)));
            }
            Statement::Param { name, dims, split, init, roles, .. } => self.param(name, dims, *split, init, roles),
            Statement::State { name, count, dims, init } => {
                self.push("state ");
                self.push(&text_of(|line| state_head(line, name, count.as_ref(), dims.as_deref())));
                self.expr(init);
            }
            Statement::Assign { targets, value } => {
                self.push(&text_of(|line| line.names(targets)));
                self.push(" = ");
                self.expr(value);
            }
            Statement::Update { target, position, value } => {
                self.push(&target.text);
                if let Some(position) = position {
                    self.push(&format!("[{}]", text_of(|line| line.expr(position))));
                }
                self.push(" <- ");
                self.expr(value);
            }
            Statement::Sample { value, .. } => {
                self.push("sample ");
                self.expr(value);
            }
            Statement::Optimize(_) => self.push("update"),
            Statement::Require { condition, message, .. } => self.require(condition, message),
            Statement::Output { name, value } => {
                self.push(&format!("output {} = ", name.text));
                self.expr(value);
            }
            Statement::Result(value) => self.expr(value),
            Statement::Repeat { count, name, body, span } => return self.repeat(count, name.as_ref(), body, *span),
        }
        self.end(statement_end(statement));
    }

    /// `require condition, "message"`, the message on the next line if the two do not fit on one.
    fn require(&mut self, condition: &Expr, message: &Expr) {
        self.push("require ");
        self.expr(condition);
        self.push(",");
        let text = text_of(|line| line.expr(message));
        if self.room(1) >= text.chars().count() {
            self.push(" ");
            return self.push(&text);
        }
        self.end_line();
        self.level += 1;
        self.push(&text);
        self.level -= 1;
    }

    fn repeat(&mut self, count: &Expr, name: Option<&Name>, body: &[Statement], span: Span) {
        self.push("repeat ");
        self.expr(count);
        self.push(" ");
        if let Some(name) = name {
            self.push(&format!("as {} ", name.text));
        }
        self.body(body, self.brace_after(count.span.end), span.end);
    }

    fn param(&mut self, name: &Name, dims: &[Dim], split: Option<usize>, init: &Expr, roles: &[Name]) {
        self.push(&format!("param {}: ", name.text));
        self.push(&text_of(|line| match split {
            Some(split) => line.split_dims(dims, split),
            None => line.dims(dims),
        }));
        let drawn = matches!(init.kind, ExprKind::Call { .. } | ExprKind::Name(_));
        self.push(if drawn { " ~ " } else { " = " });
        self.expr(init);
        if !roles.is_empty() {
            self.push(&format!(" role {}", text_of(|line| line.names(roles))));
        }
    }

    fn clause_block(&mut self, kind: &str, block: &ClauseBlock) {
        self.begin(block.span.start);
        self.push(kind);
        self.push(" ");
        if let Some(name) = &block.name {
            self.push(&format!("{} ", name.text));
        }
        let open = self.brace_after(block.span.start);
        self.lines(open, block.span.end, block.clauses.is_empty(), |printer| printer.clauses(&block.clauses));
        self.end(block.span.end);
    }

    /// Prints clauses; those that stood on one line are printed on one line with two spaces between, if they fit.
    fn clauses(&mut self, clauses: &[Clause]) {
        let mut rest = clauses;
        while let [first, more @ ..] = rest {
            self.begin(first.span.start);
            let mut last = first;
            self.clause(first);
            let mut printed = 1;
            for next in more {
                if !self.comments.same_line(last.span.end, next.span.start) {
                    break;
                }
                let Some(text) = flat(self.room(2), |line| flat_clause(line, next)) else { break };
                self.push("  ");
                self.push(&text);
                last = next;
                printed += 1;
            }
            self.end(last.span.end);
            rest = &rest[printed..];
        }
    }

    fn clause(&mut self, clause: &Clause) {
        let one_line = self.comments.same_line(clause.span.start, clause.span.end);
        if let Some(text) = flat(self.room(0), |line| flat_clause(line, clause)).filter(|_| one_line) {
            return self.push(&text);
        }
        self.push(&clause.keyword.text);
        let mut before = None;
        for word in &clause.words {
            self.push(gap(before, word));
            self.word(word);
            before = Some(word);
        }
        if let Some(inside) = &clause.block {
            self.push(" ");
            let open = self.brace_after(clause.keyword.span.end);
            self.lines(open, clause.span.end, inside.is_empty(), |printer| printer.clauses(inside));
        }
    }

    fn word(&mut self, word: &Word) {
        match word {
            Word::Value(value) => self.expr(value),
            Word::Setting(name, value) => {
                self.push(&format!("{} = ", name.text));
                self.expr(value);
            }
            Word::Mark(mark, _) => self.push(&mark_text(*mark)),
        }
    }
}

/// What `write` writes, however long it is.
fn text_of(write: impl FnOnce(&mut Line) -> Option<()>) -> String {
    flat(usize::MAX, write).expect("there is room for everything")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && super::token::Reserved::from_text(text).is_none()
}

fn kind_word(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Model => "model",
        DefinitionKind::Layer => "layer",
        DefinitionKind::Function => "function",
        DefinitionKind::Optimizer => "optimizer",
        DefinitionKind::Filter => "filter",
        DefinitionKind::Schedule => "schedule",
    }
}

/// What stands between the parameters and the body.
fn header_end(result: Option<&[Dim]>, roles: &[Name]) -> String {
    let result = result.map_or(String::new(), |dims| format!("-> {} ", text_of(|line| line.dims(dims))));
    let roles = if roles.is_empty() { String::new() } else { format!("role {} ", text_of(|line| line.names(roles))) };
    format!(" {result}{roles}")
}

/// An input or a state without its keyword.
fn declaration(line: &mut Line, statement: &Statement) -> Option<()> {
    match statement {
        Statement::Input { name, tensor } => {
            line.push(&name.text)?;
            line.push(": ")?;
            line.tensor(tensor)
        }
        Statement::State { name, count, dims, init } => {
            state_head(line, name, count.as_ref(), dims.as_deref())?;
            line.expr(init)
        }
        _ => None,
    }
}

/// `s[n]: [m] = `.
fn state_head(line: &mut Line, name: &Name, count: Option<&Expr>, dims: Option<&[Dim]>) -> Option<()> {
    line.push(&name.text)?;
    if let Some(count) = count {
        line.push("[")?;
        line.expr(count)?;
        line.push("]")?;
    }
    if let Some(dims) = dims {
        line.push(": ")?;
        line.dims(dims)?;
    }
    line.push(" = ")
}

fn statement_start(statement: &Statement) -> u32 {
    match statement {
        Statement::Param { span, .. }
        | Statement::Repeat { span, .. }
        | Statement::Sample { span, .. }
        | Statement::Optimize(span)
        | Statement::Require { span, .. } => span.start,
        Statement::Input { name, .. } | Statement::State { name, .. } | Statement::Output { name, .. } => {
            name.span.start
        }
        Statement::Assign { targets, value } => targets.first().map_or(value.span, |target| target.span).start,
        Statement::Update { target, .. } => target.span.start,
        Statement::Result(value) => value.span.start,
    }
}

fn statement_end(statement: &Statement) -> u32 {
    match statement {
        Statement::Param { span, .. }
        | Statement::Repeat { span, .. }
        | Statement::Sample { span, .. }
        | Statement::Optimize(span)
        | Statement::Require { span, .. } => span.end,
        Statement::Input { tensor, .. } => tensor.span.end,
        Statement::State { init: value, .. }
        | Statement::Assign { value, .. }
        | Statement::Update { value, .. }
        | Statement::Output { value, .. }
        | Statement::Result(value) => value.span.end,
    }
}

fn flat_clause(line: &mut Line, clause: &Clause) -> Option<()> {
    line.push(&clause.keyword.text)?;
    let mut before = None;
    for word in &clause.words {
        line.push(gap(before, word))?;
        match word {
            Word::Value(value) => line.expr(value)?,
            Word::Setting(name, value) => {
                line.push(&name.text)?;
                line.push(" = ")?;
                line.expr(value)?;
            }
            Word::Mark(mark, _) => line.push(&mark_text(*mark))?,
        }
        before = Some(word);
    }
    match clause.block.as_deref() {
        None => Some(()),
        Some([]) => line.push(" {}"),
        Some(inside) => {
            line.push(" { ")?;
            for (i, clause) in inside.iter().enumerate() {
                line.push(if i == 0 { "" } else { "  " })?;
                flat_clause(line, clause)?;
            }
            line.push(" }")
        }
    }
}

/// What stands before a word of a clause: nothing around `:`, nothing before `,`, else a space.
fn gap(before: Option<&Word>, word: &Word) -> &'static str {
    match (before, word) {
        (_, Word::Mark(',' | ':', _)) | (Some(Word::Mark(':', _)), _) => "",
        _ => " ",
    }
}

fn mark_text(mark: char) -> String {
    if mark == '>' { "->".to_owned() } else { mark.to_string() }
}
