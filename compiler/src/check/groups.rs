//! Groups of parameters: who belongs to one, and what is different for it.

use super::{
    clause::{list_of, twice},
    evaluator::{Checked, Evaluator, Failed},
    suggest::{closest, listed},
    train::Use,
};
use crate::{
    diagnostic::Diagnostic,
    program::Parameter,
    source::Span,
    syntax::tree::{Argument, Clause, ClauseBlock, DefinitionKind, Expr, ExprKind, Unit, Word},
};

/// Parameters with one role, or with paths that match a pattern.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    /// A role, or a pattern in which `*` stands for anything.
    text: String,
    /// Whether it is a pattern.
    pattern: bool,
    /// Where it stands.
    span: Span,
}

/// The learning rate of a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rate {
    /// So many times the schedule's.
    Times(f64, Span),
    /// This, whatever the schedule says.
    Absolute(f64, Span),
}

/// What is different for some parameters.
#[derive(Clone, Debug)]
pub(super) struct Group {
    selectors: Vec<Selector>,
    /// The learning rate.
    pub rate: Option<Rate>,
    optimizer: Option<Use>,
    arguments: Vec<Argument>,
    freeze: bool,
    span: Span,
}

impl Selector {
    /// Whether it selects a parameter.
    pub(super) fn selects(&self, parameter: &Parameter) -> bool {
        if self.pattern { matches(&self.text, &parameter.name) } else { parameter.roles.contains(&self.text) }
    }
}

impl Group {
    /// Whether a parameter belongs to it.
    pub(super) fn selects(&self, parameter: &Parameter) -> bool {
        self.selectors.iter().any(|selector| selector.selects(parameter))
    }

    /// The optimizer for the group, given the one outside.
    pub(super) fn overriding(&self, outer: Use) -> Use {
        let mut used = self.optimizer.clone().unwrap_or(outer);
        for argument in &self.arguments {
            let name = argument.name.as_ref().map(|name| name.text.as_str());
            used.arguments.retain(|known| known.name.as_ref().map(|known| known.text.as_str()) != name);
            used.arguments.push(argument.clone());
        }
        used
    }
}

impl Evaluator<'_> {
    /// Roles and path patterns, separated by commas.
    pub(super) fn selectors(&mut self, clause: &Clause) -> Checked<Vec<Selector>> {
        let Some(items) = list_of(&clause.words) else {
            return self.malformed(clause, "expected roles, or paths in quotes, separated by commas");
        };
        self.selectors_among(&items, clause)
    }

    /// Roles and path patterns.
    pub(super) fn selectors_among(&mut self, items: &[&Expr], clause: &Clause) -> Checked<Vec<Selector>> {
        let mut selectors = Vec::new();
        for item in items {
            match &item.kind {
                ExprKind::Name(name) => {
                    selectors.push(Selector { text: name.clone(), pattern: false, span: item.span })
                }
                ExprKind::Text(text) => selectors.push(Selector { text: text.clone(), pattern: true, span: item.span }),
                _ => return self.malformed(clause, "expected roles, or paths in quotes, separated by commas"),
            }
        }
        Ok(selectors)
    }

    /// The groups in the optimizer's block and in `train` itself; without `used` their hyperparameters are not compared.
    pub(super) fn groups(
        &mut self,
        optimizer: Option<&Clause>,
        block: &ClauseBlock,
        used: Option<&Use>,
    ) -> Checked<Vec<Group>> {
        let inner = optimizer.and_then(|clause| clause.block.as_ref()).into_iter().flatten();
        let outer = block.clauses.iter().filter(|clause| clause.keyword.text == "group");
        let groups: Vec<Checked<Group>> = inner.chain(outer).map(|clause| self.group(clause, used)).collect();
        groups.into_iter().collect()
    }

    fn group(&mut self, clause: &Clause, used: Option<&Use>) -> Checked<Group> {
        if clause.keyword.text != "group" {
            let message = format!("an optimizer has no clause `{}`", clause.keyword.text);
            let error = Diagnostic::error("E0701", clause.keyword.span, message).label("expected `group`");
            return self
                .fail(error.help("write `group norms, biases { weight_decay = 0 }`, or give it as an argument"));
        }
        let selectors = self.selectors(clause)?;
        let mut group = Group {
            selectors,
            rate: None,
            optimizer: None,
            arguments: Vec::new(),
            freeze: false,
            span: clause.keyword.span,
        };
        let Some(inner) = &clause.block else { return self.malformed(clause, "expected what is different, in braces") };
        for (i, setting) in inner.iter().enumerate() {
            if let Some(earlier) = inner[..i].iter().find(|earlier| earlier.keyword.text == setting.keyword.text) {
                return self.fail(twice(setting, earlier, "group"));
            }
            match (setting.keyword.text.as_str(), &setting.words[..]) {
                ("freeze", []) => group.freeze = true,
                ("optimizer", _) => group.optimizer = Some(self.used(setting, DefinitionKind::Optimizer)?),
                ("rate", [Word::Mark('=', _), Word::Value(value)]) => group.rate = Some(self.rate_of(value)?),
                (_, [Word::Mark('=', _), Word::Value(value)]) => {
                    group.arguments.push(Argument { name: Some(setting.keyword.clone()), value: value.clone() })
                }
                _ => return self.malformed(setting, "expected `name = value`, `optimizer ...` or `freeze`"),
            }
        }
        if let (true, Some(idle)) = (group.freeze, inner.iter().find(|setting| setting.keyword.text != "freeze")) {
            let message = format!("`{}` means nothing beside `freeze`", idle.keyword.text);
            let error = Diagnostic::error("E0653", idle.span, message).label("frozen parameters are not updated");
            return self.fail(error.help("remove it, or `freeze`"));
        }
        if let Some(used) = group.optimizer.as_ref().or(used) {
            self.known_hyperparameters(&group, used)?;
        }
        Ok(group)
    }

    fn rate_of(&mut self, value: &Expr) -> Checked<Rate> {
        let number = self.quantity(value, "the rate of a group", &[Unit::None, Unit::Times])?;
        if number.value < 0.0 {
            let error = Diagnostic::error("E0704", value.span, "a rate cannot be negative")
                .help("write for example `rate = 0.5x`");
            return self.fail(error);
        }
        Ok(match number.unit {
            Unit::Times => Rate::Times(number.value, value.span),
            _ => Rate::Absolute(number.value, value.span),
        })
    }

    fn known_hyperparameters(&mut self, group: &Group, used: &Use) -> Checked<()> {
        let definition = self.library.definition(used.definition);
        let known: Vec<&str> =
            definition.parameters.iter().filter(|p| p.tensor.is_none()).map(|p| p.name.text.as_str()).collect();
        for argument in &group.arguments {
            let Some(name) = &argument.name else { continue };
            if known.contains(&name.text.as_str()) {
                continue;
            }
            let message = format!("`{}` has no hyperparameter `{}`", definition.name.text, name.text);
            let error = Diagnostic::error("E0515", name.span, message);
            let error = match closest(&name.text, known.iter().copied().chain(["rate", "optimizer", "freeze"])) {
                Some(other) => error.replace(name.span, other, format!("did you mean `{other}`?")),
                None => error.note(format!("it has {}", listed(known.iter().copied().chain(["rate"])))),
            };
            return self.fail(error.label("unknown"));
        }
        Ok(())
    }

    /// Takes frozen parameters out of training, and complains about selectors that select nothing.
    pub(super) fn freeze(&mut self, frozen: &[Selector], groups: &[Group]) -> Checked<()> {
        let from_groups = groups.iter().filter(|group| group.freeze).flat_map(|group| &group.selectors);
        let chosen: Vec<Selector> = frozen.iter().chain(from_groups).cloned().collect();
        for selector in groups.iter().flat_map(|group| &group.selectors).chain(frozen) {
            self.selects_something(selector);
        }
        for parameter in &mut self.registry.parameters {
            if chosen.iter().any(|selector| selector.selects(parameter)) {
                parameter.trainable = false;
            }
        }
        self.idle_groups(groups, &chosen);
        if self.has_errors() { Err(Failed) } else { Ok(()) }
    }

    pub(super) fn selects_something(&mut self, selector: &Selector) {
        if self.registry.parameters.iter().any(|parameter| selector.selects(parameter)) {
            return;
        }
        let Selector { text, pattern, span } = selector;
        let mut roles: Vec<&str> = self.registry.parameters.iter().flat_map(|p| &p.roles).map(String::as_str).collect();
        roles.sort_unstable();
        roles.dedup();
        let paths = self.registry.parameters.iter().map(|parameter| parameter.name.as_str());
        let error = Diagnostic::error("E0516", *span, format!("no parameter is selected by `{text}`"));
        let error = if *pattern {
            let paths: Vec<&str> = paths.collect();
            match closest(text, paths.iter().copied()) {
                Some(path) => error.replace(*span, format!("\"{path}\""), format!("did you mean `{path}`?")),
                None => error.note(format!("there are {}", listed(paths.into_iter().take(12)))),
            }
        } else {
            match closest(text, roles.iter().copied()) {
                Some(role) => error.replace(*span, role, format!("did you mean `{role}`?")),
                None => error.note(format!("the model's roles are {}", listed(roles))),
            }
        };
        self.report(error.label(if *pattern { "no path matches" } else { "no parameter has this role" }));
    }

    fn idle_groups(&mut self, groups: &[Group], frozen: &[Selector]) {
        for group in groups {
            let touched: Vec<&Parameter> = self.registry.parameters.iter().filter(|p| group.selects(p)).collect();
            let all_frozen = touched.iter().all(|p| frozen.iter().any(|selector| selector.selects(p)));
            if all_frozen && !group.freeze && !touched.is_empty() {
                let warning = Diagnostic::warning("W0502", group.span, "this group changes nothing")
                    .label("all its parameters are frozen")
                    .help("remove the group, or freeze less");
                self.report(warning);
            }
        }
    }
}

/// Whether a path matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_in_a_path_stands_for_any_text() {
        assert!(matches("block.attention.*", "block.attention.qkv"));
        assert!(matches("*.bias", "block.layer_norm.bias"));
        assert!(matches("block.*.w", "block.ffn.linear.w"));
        assert!(matches("wte", "wte"));
        assert!(!matches("wte", "wte2"));
        assert!(!matches("block.*.w", "head.w"));
    }
}
