//! `--set name=value`: other values for constants and for the clauses of `train` that are one plain value.

use super::{
    library::{Entity, Library},
    suggest::{closest, listed},
};
use crate::{
    clauses,
    diagnostic::Diagnostic,
    source::SourceMap,
    syntax::{
        self,
        tree::{Clause, Const, Definition, DefinitionKind, Expr, ExprKind, Item, Name, Word},
    },
};

impl Library {
    /// Replaces constants (and simple clauses of `train`) by what `--set name=value` says.
    pub(super) fn apply_settings(&mut self, map: &mut SourceMap, settings: &[(String, String)]) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        for (name, value) in settings {
            let text = format!("const {name} = {value}\n");
            let file = map.add("--set", text.clone());
            let parsed = syntax::parse(file, &text);
            let first = parsed.file.items.into_iter().next();
            match first {
                Some(Item::Const(constant)) if parsed.errors.is_empty() => errors.extend(self.apply(constant)),
                _ => errors.extend(parsed.errors),
            }
        }
        errors
    }

    fn apply(&mut self, setting: Const) -> Option<Diagnostic> {
        let Const { name, value } = setting;
        if let Some((Entity::Const(index), _)) = self.user.get(&name.text) {
            self.consts[*index].value = self.as_text(value);
            return None;
        }
        if !clauses::TRAIN.clause(&name.text).is_some_and(|clause| clause.is_settable) {
            return Some(self.not_settable(&name));
        }
        // A program without `train` is refused as such.
        let clauses = &mut self.trains.first_mut()?.clauses;
        let words = vec![Word::Value(value)];
        match clauses.iter_mut().find(|clause| clause.keyword.text == name.text) {
            Some(clause) => clause.words = words,
            None => clauses.push(Clause { span: name.span, keyword: name, words, block: None }),
        }
        None
    }

    /// Why a name cannot be set.
    fn not_settable(&self, name: &Name) -> Diagnostic {
        let text = name.text.as_str();
        let not = |what: String| Diagnostic::error("E0215", name.span, format!("`--set {text}`: {what}"));
        let constant = format!("write `const {text} = ...` at the top of the program");
        if clauses::TRAIN.words().any(|word| word == text) {
            let mend = format!("name its value by a constant, as in `const {text}_value = ...`, and set that");
            return not("this clause of `train` cannot be set".into()).label("not a plain value").help(mend);
        }
        if let Some((entity, place)) = self.user.get(text) {
            let what = self.kind_of(*entity);
            let error = not(format!("this is {what}, not a constant")).also(*place, "defined here");
            return error.help("set a constant that it uses");
        }
        if let Some((definition, parameter)) = self.parameter(text) {
            let owner = &definition.name.text;
            return not(format!("this is a parameter of `{owner}`, not a constant"))
                .also(parameter.span, "declared here")
                .help(format!("{constant}, and give it as `{owner}({text} = {text})`"));
        }
        self.nothing_of_this_name(name)
    }

    fn nothing_of_this_name(&self, name: &Name) -> Diagnostic {
        let own = self.user.iter().filter(|(_, (entity, _))| matches!(entity, Entity::Const(_)));
        let mut known: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
        known.extend(clauses::TRAIN.settable());
        let message = format!("`--set {}`: the program has nothing of this name that can be set", name.text);
        let error = Diagnostic::error("E0201", name.span, message).label("unknown");
        match closest(&name.text, known.iter().copied()) {
            Some(other) => error.help(format!("did you mean `{other}`?")),
            None => error.note(format!("{} can be set", listed(known))),
        }
    }

    fn kind_of(&self, entity: Entity) -> &'static str {
        match entity {
            Entity::Const(_) => "a constant",
            Entity::Data(_) => "a data block",
            Entity::Definition(id) => match self.definition(id).kind {
                DefinitionKind::Model => "a model",
                DefinitionKind::Layer => "a layer",
                DefinitionKind::Function => "a function",
                DefinitionKind::Optimizer => "an optimizer",
                DefinitionKind::Filter => "a filter",
                DefinitionKind::Schedule => "a schedule",
            },
        }
    }

    /// The definition of the program that has a parameter of this name, models before others.
    fn parameter(&self, name: &str) -> Option<(&Definition, &Name)> {
        let own = || self.definitions.iter().filter(|definition| !self.is_std(definition.name.span.file));
        let models = own().filter(|definition| definition.kind == DefinitionKind::Model);
        models.chain(own()).find_map(|definition| {
            let parameter = definition.parameters.iter().find(|parameter| parameter.name.text == name)?;
            Some((definition, &parameter.name))
        })
    }

    /// A setting that is a bare word without meaning of its own is text: `--set precision=bf16`.
    fn as_text(&self, value: Expr) -> Expr {
        match value.kind {
            ExprKind::Name(name) if !self.means_something(&name) => Expr { kind: ExprKind::Text(name), ..value },
            kind => Expr { kind, ..value },
        }
    }

    fn means_something(&self, name: &str) -> bool {
        self.user.contains_key(name) || self.std.contains_key(name) || super::builtin::names().contains(&name)
    }
}
