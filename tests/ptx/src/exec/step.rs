//! One instruction of one warp.

use super::machine::{Block, Machine};
use super::violation::ViolationKind;
use super::warp::{Warp, blend};
use crate::decode::program::{BoolOp, Inst, Op};
use crate::float::convert::{convert, convert_pair};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW};
use crate::syntax::tree::Space;

impl Machine<'_> {
    /// Executes the next instruction of the running path, or ends the path if it has reached its meeting point.
    pub(super) fn step(&mut self, warp: &mut Warp, block: &mut Block) {
        let Some(path) = warp.stack.last() else {
            warp.state = super::warp::State::Done;
            return;
        };
        let active = path.mask & warp.live;
        if active == 0 || path.pc == path.reconverge {
            warp.stack.pop();
            return;
        }
        self.pc = path.pc as usize;
        let kernel = self.kernel;
        let inst = &kernel.code[self.pc];
        let mask = match inst.guard {
            Some(guard) => active & warp.registers.test(guard),
            None => active,
        };
        self.count(warp, mask);
        if let Op::Branch { target, reconverge } = inst.op {
            return self.branch(warp, active, mask, target, reconverge);
        }
        if mask == 0 {
            advance(warp);
            return;
        }
        match &inst.op {
            Op::BranchTable { targets, index, reconverge } => {
                return self.branch_table(warp, active, mask, (targets, *index, *reconverge));
            }
            Op::Return => self.leave(warp, mask),
            Op::Barrier { id, threads, arrive_only } => {
                let lane = mask.trailing_zeros() as usize;
                let value = |reg: u32| warp.registers.narrow[reg as usize][lane];
                let (id, threads) = (value(*id), threads.map(value));
                self.arrive(warp, block, mask, id, threads, *arrive_only);
            }
            _ => self.execute(warp, block, inst, mask),
        }
        advance(warp);
    }

    /// Everything that does not change the flow of control.
    fn execute(&mut self, warp: &mut Warp, block: &mut Block, inst: &Inst, mask: u32) {
        let registers = &mut warp.registers;
        match &inst.op {
            Op::Unary { op, ty, mode, d, a } => self.unary(registers, mask, (*op, *ty, *mode), *d, *a),
            Op::Binary { op, ty, mode, d, a, b } => self.binary(registers, mask, (*op, *ty, *mode), *d, [*a, *b]),
            Op::Ternary { op, ty, mode, d, a, b, c } => {
                self.ternary(registers, mask, (*op, *ty, *mode), *d, [*a, *b, *c]);
            }
            Op::Setp { compare, ty, ftz, with, p, q, a, b } => {
                let result = super::integer_lanes::compare(registers, *compare, *ty, *ftz, [*a, *b]);
                let combine = |bits: u32| match with {
                    Some((op, predicate)) => logic(*op, bits, registers.test(*predicate)),
                    None => bits,
                };
                let (first, second) = (combine(result), combine(!result));
                p.iter().for_each(|p| registers.set_predicate(*p, mask, first));
                q.iter().for_each(|q| registers.set_predicate(*q, mask, second));
            }
            Op::PredicateLogic { op, d, a, b } => {
                let bits = logic(*op, registers.test(*a), registers.test(*b));
                registers.set_predicate(*d, mask, bits);
            }
            Op::Selp { wide, d, a, b, p } => {
                let chosen = registers.test(*p);
                if *wide {
                    let mut value = registers.wide[*b as usize];
                    blend(&mut value, &registers.wide[*a as usize], chosen);
                    blend(&mut registers.wide[*d as usize], &value, mask);
                } else {
                    let mut value = registers.narrow[*b as usize];
                    blend(&mut value, &registers.narrow[*a as usize], chosen);
                    blend(&mut registers.narrow[*d as usize], &value, mask);
                }
            }
            Op::Cvt(cvt) if cvt.b.is_some() => {
                let b = registers.narrow[cvt.b.unwrap_or(cvt.a.0) as usize];
                let a = registers.narrow[cvt.a.0 as usize];
                let value = std::array::from_fn(|lane| convert_pair(cvt, a[lane], b[lane]));
                blend(&mut registers.narrow[cvt.d.0 as usize], &value, mask);
            }
            Op::Cvt(cvt) => {
                let value = registers.read(cvt.a.0, cvt.a.1).map(|bits| convert(cvt, bits));
                registers.write(cvt.d.0, cvt.d.1, mask, &value);
            }
            Op::Cvta { space, to_space, d, a } => {
                let base = match space {
                    Space::Shared => SHARED_WINDOW,
                    Space::Local => LOCAL_WINDOW,
                    _ => 0,
                };
                let sign = if *to_space { base.wrapping_neg() } else { base };
                // Local symbols are generic addresses already.
                let sign = if *space == Space::Local { 0 } else { sign };
                let value = registers.wide[*a as usize].map(|address| address.wrapping_add(sign));
                blend(&mut registers.wide[*d as usize], &value, mask);
            }
            Op::Ld(transfer) => self.load(warp, block, transfer, mask),
            Op::St(transfer) => self.store(warp, block, transfer, mask),
            Op::Atomic { .. } => self.atomic(warp, block, &inst.op, mask),
            Op::AsyncCopy { bytes, source_bytes, to, from } => {
                let source = source_bytes.map_or([u32::from(*bytes); 32], |reg| registers.narrow[reg as usize]);
                let (to, from) = (self.addresses(warp, to), self.addresses(warp, from));
                self.issue_copies(warp, &mut block.shared, mask, (to, from), *bytes, source);
            }
            Op::AsyncCommit => warp.copies.commit(mask),
            Op::AsyncWait { pending } => self.deliver_copies(warp, &mut block.shared, mask, *pending),
            Op::LoadMatrix { count, transposed, d, address } => {
                self.load_matrix(warp, block, mask, (*count, *transposed), d, address);
            }
            Op::Mma(mma) => self.mma(warp, mask, mma),
            Op::Trap => {
                self.report(warp, mask.trailing_zeros() as usize, ViolationKind::Trap, "the kernel trapped");
                self.stopped = true;
            }
            Op::Fence | Op::Nop => {}
            Op::WarpBarrier { .. }
            | Op::Shuffle { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Reduce { .. }
            | Op::ActiveMask { .. } => self.collective(warp, block, &inst.op, mask),
            other => super::integer_lanes::rest(registers, other, mask),
        }
    }
}

fn advance(warp: &mut Warp) {
    if let Some(path) = warp.stack.last_mut() {
        path.pc += 1;
    }
}

fn logic(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}
