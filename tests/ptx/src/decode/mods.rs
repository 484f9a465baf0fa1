//! Modifiers of an opcode, taken one by one; what is left over is an error.

use super::program::{Mode, Round};
use crate::syntax::PtxError;
use crate::syntax::tree::{Instruction, Space, Type};

pub struct Mods<'a> {
    inst: &'a Instruction,
    rest: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    pub fn new(inst: &'a Instruction) -> Mods<'a> {
        Mods { inst, rest: inst.modifiers.iter().map(String::as_str).collect() }
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        let name = format!("{}.{}", self.inst.opcode, self.inst.modifiers.join("."));
        let name = name.trim_end_matches('.');
        Err(PtxError::new(self.inst.line, format!("`{name}`: {}", message.into())))
    }

    /// Takes `.name` if it is there.
    pub fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|rest| *rest == name);
        if let Some(at) = found {
            self.rest.remove(at);
        }
        found.is_some()
    }

    /// Whether `.name` was written, taken or not.
    pub fn written(&self, name: &str) -> bool {
        self.inst.modifiers.iter().any(|written| written == name)
    }

    /// Takes the first of some spellings that is there.
    pub fn take_one<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(name, _)| self.take(name)).map(|(_, value)| *value)
    }

    pub fn one<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T, PtxError> {
        match self.take_one(choices) {
            Some(value) => Ok(value),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!(".{name}")).collect();
                self.error(format!("needs one of {}", names.join(", ")))
            }
        }
    }

    /// Takes the next type.
    pub fn take_type(&mut self) -> Option<Type> {
        let at = self.rest.iter().position(|name| Type::from_name(name).is_some())?;
        Type::from_name(self.rest.remove(at))
    }

    pub fn ty(&mut self) -> Result<Type, PtxError> {
        match self.take_type() {
            Some(ty) => Ok(ty),
            None => self.error("needs a type"),
        }
    }

    pub fn space(&mut self) -> Space {
        let spaces = [
            ("param", Space::Param),
            ("global", Space::Global),
            ("const", Space::Const),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
        ];
        self.take_one(&spaces).unwrap_or(Space::Generic)
    }

    pub fn round(&mut self) -> Option<Round> {
        let roundings = [
            ("rn", Round::Nearest),
            ("rna", Round::NearestAway),
            ("rz", Round::Zero),
            ("rm", Round::Down),
            ("rp", Round::Up),
        ];
        self.take_one(&roundings)
    }

    /// Rounding to an integral value.
    pub fn integral(&mut self) -> Option<Round> {
        let roundings = [("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)];
        self.take_one(&roundings)
    }

    /// Everything that changes how a floating-point result is made.
    pub fn mode(&mut self) -> Mode {
        Mode {
            round: self.round().unwrap_or_default(),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            approx: self.take("approx") | self.take("full"),
            nan: self.take("NaN"),
            relu: self.take("relu"),
        }
    }

    /// Memory order, scope and cache hints: the executor is sequentially consistent, so they change nothing.
    pub fn skip_ordering(&mut self) {
        let names = [
            "weak",
            "relaxed",
            "acquire",
            "release",
            "acq_rel",
            "sc",
            "volatile",
            "cta",
            "cluster",
            "gpu",
            "sys",
            "gl",
            "ca",
            "cg",
            "cs",
            "lu",
            "cv",
            "wb",
            "wt",
            "L1::evict_last",
            "L1::evict_first",
            "L1::no_allocate",
            "L1::evict_normal",
            "L2::64B",
            "L2::128B",
            "L2::256B",
        ];
        for name in names {
            self.take(name);
        }
    }

    pub fn finish(self) -> Result<(), PtxError> {
        match self.rest.first() {
            Some(name) => self.error(format!("the modifier `.{name}` is not supported")),
            None => Ok(()),
        }
    }
}
