//! Tokens to tree: recursive descent over module, function and statement.

use std::collections::HashMap;

use super::PtxError;
use super::lex::{Token, tokens};
use super::tree::{Function, Instruction, Module, Operand, Space, Statement, Type, Variable};

/// Parses a PTX module. Device functions are refused by name, as nothing here executes calls.
pub fn parse(source: &str) -> Result<Module> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, at: 0, scopes: Vec::new(), scope_count: 0 };
    parser.module()
}

/// Nested blocks at most: the parser recurses into them.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    /// Registers of nested blocks that hide outer ones, by name.
    scopes: Vec<HashMap<String, String>>,
    scope_count: usize,
}

type Result<T> = std::result::Result<T, PtxError>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|(token, _)| *token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn error<T>(&self, expected: &str) -> Result<T> {
        let found = self.peek().map_or("the end of the text".to_owned(), spelling);
        Err(PtxError::new(self.line(), format!("expected {expected}, found {found}")))
    }

    fn eat(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn eat_sign(&mut self, sign: char) -> bool {
        self.eat(Token::Sign(sign))
    }

    fn sign(&mut self, sign: char) -> Result<()> {
        if self.eat_sign(sign) { Ok(()) } else { self.error(&format!("`{sign}`")) }
    }

    fn word(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word.to_owned())
            }
            _ => self.error(what),
        }
    }

    fn dot(&mut self) -> Option<&'a str> {
        let Some(Token::Dot(name)) = self.peek() else { return None };
        self.at += 1;
        Some(name)
    }

    fn integer(&mut self) -> Result<i64> {
        let negative = self.eat_sign('-');
        match self.peek() {
            Some(Token::Integer(value)) => {
                self.at += 1;
                Ok(if negative { (value as i64).wrapping_neg() } else { value as i64 })
            }
            _ => self.error("an integer"),
        }
    }

    fn skip_past(&mut self, sign: char) {
        while self.peek().is_some() && !self.eat_sign(sign) {
            self.at += 1;
        }
    }

    fn module(&mut self) -> Result<Module> {
        let mut module = Module::default();
        while self.peek().is_some() {
            self.module_item(&mut module)?;
        }
        if module.target == 0 {
            return Err(PtxError::new(1, "the module names no `.target`"));
        }
        Ok(module)
    }

    fn module_item(&mut self, module: &mut Module) -> Result<()> {
        let mut external = false;
        loop {
            let line = self.line();
            let Some(name) = self.dot() else { return self.error("a directive") };
            match name {
                "version" => return self.version(module),
                "target" => return self.target(module),
                "address_size" => return self.address_size(),
                "file" | "pragma" => {
                    self.skip_line(line);
                    return Ok(());
                }
                "section" => {
                    self.skip_past('}');
                    return Ok(());
                }
                "extern" => external = true,
                "visible" | "weak" | "common" => {}
                "entry" => {
                    let kernel = self.entry()?;
                    module.kernels.push(kernel);
                    return Ok(());
                }
                "func" => return self.device_function(),
                space => {
                    let Some(space) = space_from(space) else {
                        return Err(PtxError::new(line, format!("the directive `.{space}` is not known")));
                    };
                    let variables = self.variables(space, external)?;
                    module.variables.extend(variables);
                    return Ok(());
                }
            }
        }
    }

    fn skip_line(&mut self, line: u32) {
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
    }

    fn version(&mut self, module: &mut Module) -> Result<()> {
        let Some(Token::Double(bits)) = self.peek() else { return self.error("a version such as 8.0") };
        self.at += 1;
        let tenths = (f64::from_bits(bits) * 10.0).round() as u32;
        module.version = (tenths / 10, tenths % 10);
        Ok(())
    }

    fn target(&mut self, module: &mut Module) -> Result<()> {
        let name = self.word("a target such as sm_80")?;
        let digits = name.strip_prefix("sm_").map(|rest| rest.trim_end_matches(char::is_alphabetic));
        module.target = match digits.and_then(|digits| digits.parse().ok()) {
            Some(target) => target,
            None => return self.error(&format!("a target such as sm_80 instead of `{name}`")),
        };
        while self.eat_sign(',') {
            self.word("a target option")?;
        }
        Ok(())
    }

    fn address_size(&mut self) -> Result<()> {
        if self.integer()? == 64 { Ok(()) } else { self.error("`.address_size 64`; no other is supported, before") }
    }

    fn device_function(&mut self) -> Result<()> {
        if self.eat_sign('(') {
            self.skip_past(')');
        }
        let line = self.line();
        let name = self.word("a function's name")?;
        Err(PtxError::new(line, format!("`.func {name}`: calls are not executed here; the compiler must inline them")))
    }

    fn entry(&mut self) -> Result<Function> {
        let line = self.line();
        let name = self.word("a kernel's name")?;
        let mut function =
            Function { name, params: vec![], max_threads: None, required_threads: None, body: vec![], line };
        if self.eat_sign('(') && !self.eat_sign(')') {
            loop {
                let Some("param") = self.dot() else { return self.error("`.param`") };
                function.params.push(self.variable(Space::Param, false)?);
                if !self.eat_sign(',') {
                    break;
                }
            }
            self.sign(')')?;
        }
        self.tuning(&mut function)?;
        self.sign('{')?;
        self.statements(&mut function.body)?;
        Ok(function)
    }

    /// `.maxntid`, `.reqntid` and other performance directives between the parameters and the body.
    fn tuning(&mut self, function: &mut Function) -> Result<()> {
        while let Some(name) = self.dot() {
            let line = self.line();
            let mut extents = Vec::new();
            while matches!(self.peek(), Some(Token::Integer(_))) {
                extents.push(self.integer()? as u64);
                self.eat_sign(',');
            }
            match name {
                "maxntid" => function.max_threads = Some(extents.iter().product()),
                "reqntid" => {
                    let extent = |axis| extents.get(axis).map_or(1, |&extent: &u64| extent as u32);
                    function.required_threads = Some([extent(0), extent(1), extent(2)]);
                }
                "minnctapersm" | "maxnreg" | "maxnctapersm" | "noreturn" => {}
                "pragma" => self.skip_past(';'),
                other => return Err(PtxError::new(line, format!("the kernel directive `.{other}` is not known"))),
            }
        }
        Ok(())
    }

    /// Variables of one declaration, up to its semicolon.
    fn variables(&mut self, space: Space, external: bool) -> Result<Vec<Variable>> {
        let mut variables = vec![self.variable(space, external)?];
        while self.eat_sign(',') {
            let mut next = self.variable(space, external)?;
            next.align = variables[0].align;
            variables.push(next);
        }
        self.sign(';')?;
        Ok(variables)
    }

    fn variable(&mut self, space: Space, external: bool) -> Result<Variable> {
        let (mut align, mut element, mut lanes) = (None, None, 1);
        while let Some(name) = self.dot() {
            match name {
                "align" => align = Some(self.integer()? as u64),
                "ptr" | "global" | "shared" | "const" | "local" | "attribute" => {
                    // `.ptr .global .align 16` describes what a parameter points to, not the parameter.
                    if self.peek() == Some(Token::Dot("align")) {
                        self.at += 1;
                        self.integer()?;
                    }
                }
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                other => match Type::from_name(other) {
                    Some(ty) => element = Some(ty),
                    None => return self.error(&format!("a type instead of `.{other}` before")),
                },
            }
        }
        let line = self.line();
        let name = self.word("a variable's name")?;
        let Some(element) = element else { return self.error("a type before the name, not") };
        let element_bytes = element.bytes() as u64 * lanes;
        let mut bytes = element_bytes;
        while self.eat_sign('[') {
            let extent = if self.peek() == Some(Token::Sign(']')) { 0 } else { self.integer()? as u64 };
            bytes = bytes.checked_mul(extent).ok_or_else(|| PtxError::new(line, "the variable is too large"))?;
            self.sign(']')?;
        }
        let initial = if self.eat_sign('=') { Some(self.initial(element)?) } else { None };
        Ok(Variable { space, align: align.unwrap_or(element_bytes).max(1), name, bytes, initial, external, line })
    }

    fn initial(&mut self, element: Type) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.eat_sign('{') {
            while !self.eat_sign('}') {
                bytes.extend(self.initial(element)?);
                self.eat_sign(',');
            }
            return Ok(bytes);
        }
        let value = match self.peek() {
            Some(Token::Single(bits)) if element == Type::F32 || element == Type::B32 => self.accept(u64::from(bits)),
            Some(Token::Double(bits)) if element == Type::F64 || element == Type::B64 => self.accept(bits),
            Some(Token::Double(bits)) if element == Type::F32 => {
                self.accept(u64::from((f64::from_bits(bits) as f32).to_bits()))
            }
            _ => self.integer()? as u64,
        };
        bytes.extend(&value.to_le_bytes()[..element.bytes().min(8)]);
        Ok(bytes)
    }

    fn accept<T>(&mut self, value: T) -> T {
        self.at += 1;
        value
    }

    /// Statements up to the closing brace, which is consumed.
    fn statements(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        self.scopes.push(HashMap::new());
        if self.scopes.len() > MAX_DEPTH {
            return self.error("at most 64 nested blocks, before");
        }
        while !self.eat_sign('}') {
            if self.eat_sign('{') {
                self.statements(body)?;
            } else {
                self.statement(body)?;
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn statement(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        match self.peek() {
            Some(Token::Dot(name)) => {
                self.at += 1;
                self.directive(name, line, body)
            }
            Some(Token::Word(word)) if matches!(self.tokens.get(self.at + 1), Some((Token::Sign(':'), _))) => {
                self.at += 2;
                if self.eat(Token::Dot("branchtargets")) {
                    body.push(Statement::BranchTargets(word.to_owned(), self.names()?));
                } else {
                    body.push(Statement::Label(word.to_owned(), line));
                }
                Ok(())
            }
            Some(Token::Word(_) | Token::Sign('@')) => {
                let instruction = self.instruction()?;
                body.push(Statement::Instruction(instruction));
                Ok(())
            }
            Some(Token::Sign(';')) => {
                self.at += 1;
                Ok(())
            }
            _ => self.error("a statement or `}`"),
        }
    }

    fn names(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.word("a label")?];
        while self.eat_sign(',') {
            names.push(self.word("a label")?);
        }
        self.sign(';')?;
        Ok(names)
    }

    fn directive(&mut self, name: &str, line: u32, body: &mut Vec<Statement>) -> Result<()> {
        match name {
            "reg" => self.registers(body),
            "pragma" => {
                self.skip_past(';');
                Ok(())
            }
            "loc" | "file" => {
                self.skip_line(line);
                Ok(())
            }
            "shared" | "local" | "extern" => {
                let external = name == "extern";
                let space = if external { self.dot().unwrap_or("") } else { name };
                let Some(space) = space_from(space) else { return self.error("a state space") };
                body.extend(self.variables(space, external)?.into_iter().map(Statement::Variable));
                Ok(())
            }
            other => Err(PtxError::new(line, format!("the directive `.{other}` is not known in a body"))),
        }
    }

    /// `.reg .b32 %r<10>;` or `.reg .pred p, q;`. In nested blocks names are made unique.
    fn registers(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        let Some(ty) = self.dot().and_then(Type::from_name) else { return self.error("a register type") };
        let mut names = Vec::new();
        loop {
            let name = self.word("a register's name")?;
            if self.eat_sign('<') {
                let count = self.integer()?;
                if !(0..=1 << 20).contains(&count) {
                    return self.error("at most a million registers before");
                }
                self.sign('>')?;
                names.extend((0..count).map(|index| format!("{name}{index}")));
            } else {
                names.push(name);
            }
            if !self.eat_sign(',') {
                break;
            }
        }
        self.sign(';')?;
        if self.scopes.len() > 1 {
            self.scope_count += 1;
            for name in &mut names {
                let unique = format!("{name}#{}", self.scope_count);
                self.scopes.last_mut().expect("inside a body").insert(name.clone(), unique.clone());
                *name = unique;
            }
        }
        body.push(Statement::Registers(ty, names));
        Ok(())
    }

    fn resolve(&self, name: &str) -> String {
        let hidden = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        hidden.cloned().unwrap_or_else(|| name.to_owned())
    }

    fn instruction(&mut self) -> Result<Instruction> {
        let guard = if self.eat_sign('@') {
            let negated = self.eat_sign('!');
            let name = self.word("a predicate")?;
            Some((self.resolve(&name), negated))
        } else {
            None
        };
        let line = self.line();
        let opcode = self.word("an opcode")?;
        let mut modifiers = Vec::new();
        while let Some(name) = self.dot() {
            modifiers.push(name.to_owned());
        }
        let mut operands = Vec::new();
        while !self.eat_sign(';') {
            operands.push(self.operand()?);
            if !self.eat_sign(',') && self.peek() != Some(Token::Sign(';')) {
                return self.error("`,` or `;`");
            }
        }
        Ok(Instruction { guard, opcode, modifiers, operands, line })
    }

    fn operand(&mut self) -> Result<Operand> {
        let operand = self.simple_operand()?;
        if self.eat_sign('|') {
            let second = self.simple_operand()?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }

    fn simple_operand(&mut self) -> Result<Operand> {
        match self.peek() {
            Some(Token::Word("_")) => Ok(self.accept(Operand::Sink)),
            Some(Token::Word(_)) => self.name_operand(),
            Some(Token::Single(bits)) => Ok(self.accept(Operand::Single(bits))),
            Some(Token::Double(bits)) => Ok(self.accept(Operand::Double(bits))),
            Some(Token::Integer(_) | Token::Sign('-')) => Ok(Operand::Integer(self.integer()?)),
            Some(Token::Sign('!')) => {
                self.at += 1;
                let name = self.word("a predicate")?;
                Ok(Operand::Not(self.resolve(&name)))
            }
            Some(Token::Sign('{')) => {
                self.at += 1;
                let mut elements = Vec::new();
                while !self.eat_sign('}') {
                    elements.push(self.simple_operand()?);
                    self.eat_sign(',');
                }
                Ok(Operand::Vector(elements))
            }
            Some(Token::Sign('[')) => self.address(),
            _ => self.error("an operand"),
        }
    }

    fn name_operand(&mut self) -> Result<Operand> {
        let word = self.word("a name")?;
        if word == "WARP_SZ" {
            return Ok(Operand::Integer(32));
        }
        let name = match self.dot() {
            Some(component) => format!("{word}.{component}"),
            None => self.resolve(&word),
        };
        let offset = self.offset()?;
        Ok(if offset == 0 { Operand::Name(name) } else { Operand::Offset(name, offset) })
    }

    /// `+8`, `+-8`, `-8` or nothing.
    fn offset(&mut self) -> Result<i64> {
        if self.eat_sign('+') || self.peek() == Some(Token::Sign('-')) { self.integer() } else { Ok(0) }
    }

    fn address(&mut self) -> Result<Operand> {
        self.sign('[')?;
        let base = match self.peek() {
            Some(Token::Word(word)) => Some(self.accept(self.resolve(word))),
            _ => None,
        };
        let offset = if base.is_some() { self.offset()? } else { self.integer()? };
        self.sign(']')?;
        Ok(Operand::Address(base, offset))
    }
}

fn space_from(name: &str) -> Option<Space> {
    Some(match name {
        "param" => Space::Param,
        "global" => Space::Global,
        "const" => Space::Const,
        "shared" | "shared::cta" => Space::Shared,
        "local" => Space::Local,
        _ => return None,
    })
}

fn spelling(token: Token<'_>) -> String {
    match token {
        Token::Word(word) => format!("`{word}`"),
        Token::Dot(name) => format!("`.{name}`"),
        Token::Integer(value) => format!("`{value}`"),
        Token::Single(bits) => format!("`0f{bits:08X}`"),
        Token::Double(bits) => format!("`0d{bits:016X}`"),
        Token::Text(text) => format!("\"{text}\""),
        Token::Sign(sign) => format!("`{sign}`"),
    }
}
