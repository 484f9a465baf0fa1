//! All definitions of a compilation: the program's, its imports' and the standard library's.

use super::{Sources, suggest};
use crate::{
    diagnostic::Diagnostic,
    source::{FileId, Span},
    syntax::{
        self,
        tree::{ClauseBlock, Const, Definition, Item, Name},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// A definition in [`Library::definitions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefinitionId(pub u32);

/// What a name at the top of a file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entity {
    /// A model, layer, function, optimizer, filter or schedule.
    Definition(DefinitionId),
    /// A constant (index into [`Library::consts`]).
    Const(usize),
    /// A data block (index into [`Library::data`]).
    Data(usize),
}

/// The files of the standard library: name and text.
const STD: [(&str, &str); 9] = [
    ("std/activations.train", include_str!("../../std/activations.train")),
    ("std/attention.train", include_str!("../../std/attention.train")),
    ("std/convolution.train", include_str!("../../std/convolution.train")),
    ("std/filters.train", include_str!("../../std/filters.train")),
    ("std/initial.train", include_str!("../../std/initial.train")),
    ("std/layers.train", include_str!("../../std/layers.train")),
    ("std/losses.train", include_str!("../../std/losses.train")),
    ("std/optimizers.train", include_str!("../../std/optimizers.train")),
    ("std/schedules.train", include_str!("../../std/schedules.train")),
];

/// What to do when the library is not imported; said once for a program.
pub(super) const ADD_IMPORT: &str = "add `use std` at the top of the file";

/// Most files that may import one another in a chain.
const MAX_IMPORTS: usize = 32;

/// All items of all files.
#[derive(Debug, Default)]
pub(super) struct Library {
    /// Models, layers, functions, optimizers, filters, schedules.
    pub definitions: Vec<Definition>,
    /// Constants.
    pub consts: Vec<Const>,
    /// Data blocks.
    pub data: Vec<ClauseBlock>,
    /// Train blocks.
    pub trains: Vec<ClauseBlock>,
    /// Whether the program imports the standard library.
    pub imports_std: bool,
    /// The program's own names.
    pub user: BTreeMap<String, (Entity, Span)>,
    /// The standard library's.
    pub std: BTreeMap<String, (Entity, Span)>,
    std_files: BTreeSet<FileId>,
}

impl Library {
    /// Reads the root file, what it imports, and the standard library.
    pub(super) fn load(sources: &mut dyn Sources, root: FileId) -> (Library, Vec<Diagnostic>) {
        let mut loader = Loader { sources, library: Library::default(), errors: Vec::new(), seen: BTreeSet::new() };
        for (name, text) in STD {
            let file = loader.sources.map().add(name, text);
            loader.library.std_files.insert(file);
            loader.file(file, &mut Vec::new());
        }
        loader.file(root, &mut Vec::new());
        (loader.library, loader.errors)
    }

    /// Whether a place is in the standard library.
    pub(super) fn is_std(&self, file: FileId) -> bool {
        self.std_files.contains(&file)
    }

    /// What a name means in a file. The library's own names win inside the library, so that a program may define a
    /// layer of the same name without changing the others.
    pub(super) fn find(&self, name: &str, from: FileId) -> Option<Entity> {
        if self.is_std(from) {
            return self.std.get(name).map(|(entity, _)| *entity);
        }
        let own = self.user.get(name);
        let shared = self.imports_std.then(|| self.std.get(name)).flatten();
        own.or(shared).map(|(entity, _)| *entity)
    }

    /// Whether the standard library has a name that the program cannot see because it does not import it.
    pub(super) fn needs_import(&self, name: &str) -> bool {
        !self.imports_std && self.std.contains_key(name)
    }

    /// The definition with this id.
    pub(super) fn definition(&self, id: DefinitionId) -> &Definition {
        &self.definitions[id.0 as usize]
    }

    /// All names that a file can see.
    pub(super) fn names(&self, from: FileId) -> impl Iterator<Item = &str> {
        let user = (!self.is_std(from)).then_some(&self.user);
        let std = (self.is_std(from) || self.imports_std).then_some(&self.std);
        user.into_iter().chain(std).flat_map(|table| table.keys().map(String::as_str))
    }

    /// Names of definitions that satisfy a condition, the program's own first.
    pub(super) fn definitions_where(&self, wanted: impl Fn(&Definition) -> bool + Copy) -> Vec<&str> {
        let tables = [Some(&self.user), self.imports_std.then_some(&self.std)];
        let entries = tables.into_iter().flatten().flatten();
        entries
            .filter(|(_, (entity, _))| matches!(entity, Entity::Definition(id) if wanted(self.definition(*id))))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn insert(&mut self, name: &Name, entity: Entity, errors: &mut Vec<Diagnostic>) {
        let table = if self.std_files.contains(&name.span.file) { &mut self.std } else { &mut self.user };
        match table.get(&name.text) {
            Some((_, earlier)) => errors.push(
                Diagnostic::error("E0202", name.span, format!("`{}` is defined twice", name.text))
                    .label("the second definition")
                    .also(*earlier, "the first one")
                    .help("give one of them another name"),
            ),
            None => drop(table.insert(name.text.clone(), (entity, name.span))),
        }
    }
}

struct Loader<'s> {
    sources: &'s mut dyn Sources,
    library: Library,
    errors: Vec<Diagnostic>,
    seen: BTreeSet<FileId>,
}

impl Loader<'_> {
    /// Reads a file and what it imports. `open` holds the files whose imports are being read.
    fn file(&mut self, file: FileId, open: &mut Vec<FileId>) {
        if !self.seen.insert(file) {
            return;
        }
        let text = self.sources.map().file(file).text.clone();
        let parsed = syntax::parse(file, &text);
        self.errors.extend(parsed.errors);
        open.push(file);
        for item in parsed.file.items {
            self.item(item, open);
        }
        open.pop();
    }

    fn item(&mut self, item: Item, open: &mut Vec<FileId>) {
        match item {
            Item::Use(import) if import.path == "std" => self.library.imports_std = true,
            Item::Use(import) => self.import(&import.path, import.span, open),
            Item::Const(constant) => {
                let entity = Entity::Const(self.library.consts.len());
                self.library.insert(&constant.name, entity, &mut self.errors);
                self.library.consts.push(constant);
            }
            Item::Definition(definition) => {
                let entity = Entity::Definition(DefinitionId(self.library.definitions.len() as u32));
                self.library.insert(&definition.name, entity, &mut self.errors);
                self.library.definitions.push(definition);
            }
            Item::Data(block) => {
                if let Some(name) = &block.name {
                    let entity = Entity::Data(self.library.data.len());
                    self.library.insert(name, entity, &mut self.errors);
                }
                self.library.data.push(block);
            }
            Item::Train(block) => self.library.trains.push(block),
        }
    }

    fn import(&mut self, path: &str, span: Span, open: &mut Vec<FileId>) {
        match self.sources.load(path, span.file, span) {
            Err(error) => self.errors.push(error),
            Ok(file) => {
                let file = self.known_file(file);
                if open.len() > MAX_IMPORTS && !open.contains(&file) {
                    self.errors.push(
                        Diagnostic::error("E0110", span, format!("\"{path}\" is imported through too many files"))
                            .label(format!("more than {MAX_IMPORTS} imports lead here, one from the other"))
                            .help("import it from the program itself"),
                    );
                } else if open.contains(&file) {
                    self.errors.push(
                        Diagnostic::error("E0206", span, format!("\"{path}\" imports itself"))
                            .label("this closes a circle of imports")
                            .help("move what both files need into a third one"),
                    );
                } else {
                    self.file(file, open);
                }
            }
        }
    }

    /// The file that was loaded first under the same name.
    fn known_file(&mut self, file: FileId) -> FileId {
        let name = self.sources.map().file(file).name.clone();
        let first = self.sources.map().iter().find(|(_, known)| known.name == name).map(|(id, _)| id);
        first.unwrap_or(file)
    }
}

/// The error for a name that nothing defines.
pub(super) fn unknown_name(
    library: &Library,
    name: &str,
    span: Span,
    locals: &[String],
    builtins: &[&'static str],
) -> Diagnostic {
    let error = Diagnostic::error("E0201", span, format!("unknown name `{name}`"));
    if library.needs_import(name) {
        return error.label("this is in the standard library").help(ADD_IMPORT);
    }
    let known = locals.iter().map(String::as_str).chain(library.names(span.file)).chain(builtins.iter().copied());
    match suggest::closest(name, known) {
        Some(other) => error.label("not defined").replace(span, other, format!("did you mean `{other}`?")),
        None => error.label("not defined").note("a name must be defined before it is used"),
    }
}
