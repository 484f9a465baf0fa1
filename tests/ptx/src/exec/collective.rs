//! Instructions in which the lanes of a warp exchange values.

use super::machine::{Block, Machine};
use super::transfer::apply;
use super::violation::ViolationKind;
use super::warp::{LANES, Warp, blend, lanes_of};
use crate::decode::program::{Op, Reg, ShuffleOp, VoteOp};

impl Machine<'_> {
    /// Whether all lanes of the warp that are left execute the instruction, as `.aligned` demands.
    pub(super) fn whole_warp(&mut self, warp: &Warp, mask: u32) -> bool {
        if mask == u32::MAX {
            return true;
        }
        let missing = (!mask).trailing_zeros() as usize;
        let detail = format!("all 32 lanes must execute this together; only {mask:#010x} do");
        self.report(warp, missing, ViolationKind::DivergentLanes, detail);
        self.stopped = true;
        false
    }

    /// The lanes named as members must be those that execute the instruction together.
    fn members_agree(&mut self, warp: &Warp, mask: u32, members: Reg) -> bool {
        let named = warp.registers.narrow[members as usize];
        let wrong = lanes_of(mask).find(|&lane| {
            // Lanes that have left need not come.
            named[lane] & warp.live != mask && (named[lane] >> lane & 1 == 0 || named[lane] & warp.live & !mask != 0)
        });
        let Some(lane) = wrong else { return true };
        let detail = format!(
            "the instruction names lanes {:#010x}, but {mask:#010x} execute it together (of {:#010x} that are left)",
            named[lane], warp.live
        );
        self.report(warp, lane, ViolationKind::DivergentLanes, detail);
        self.stopped = true;
        false
    }

    pub(super) fn collective(&mut self, warp: &mut Warp, block: &mut Block, op: &Op, mask: u32) {
        let members = match *op {
            Op::WarpBarrier { members }
            | Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Reduce { members, .. } => members,
            Op::ActiveMask { d } => {
                blend(&mut warp.registers.narrow[d as usize], &[mask; LANES], mask);
                return;
            }
            _ => return,
        };
        if !self.members_agree(warp, mask, members) {
            return;
        }
        match *op {
            Op::WarpBarrier { .. } => block.shared.tick(warp.index),
            Op::Shuffle { op, d, p, a, b, c, .. } => self.shuffle(warp, mask, op, (d, p), [a, b, c]),
            Op::Vote { op, d, p, members } => {
                let named = warp.registers.narrow[members as usize][mask.trailing_zeros() as usize];
                let bits = warp.registers.test(p) & mask & named;
                let full = mask & named;
                let (all, any) = (bits == full, bits != 0);
                let answer = match op {
                    VoteOp::All => all,
                    VoteOp::Any => any,
                    VoteOp::Uniform => all || !any,
                    VoteOp::Ballot => {
                        blend(&mut warp.registers.narrow[d as usize], &[bits; LANES], mask);
                        return;
                    }
                };
                warp.registers.set_predicate(d, mask, if answer { u32::MAX } else { 0 });
            }
            Op::Match { all, wide, d, p, a, .. } => {
                let values = warp.registers.read(a, wide);
                let equal = |lane: usize| {
                    lanes_of(mask)
                        .filter(|other| values[*other] == values[lane])
                        .fold(0, |bits, other| bits | 1 << other)
                };
                let result: [u32; LANES] = std::array::from_fn(|lane| {
                    let equal: u32 = equal(lane);
                    if all && equal != mask { 0 } else { equal }
                });
                p.iter().for_each(|p| {
                    let all_equal = equal(mask.trailing_zeros() as usize) == mask;
                    warp.registers.set_predicate(*p, mask, if all_equal { u32::MAX } else { 0 });
                });
                blend(&mut warp.registers.narrow[d as usize], &result, mask);
            }
            Op::Reduce { op, ty, d, a, .. } => {
                let values = warp.registers.narrow[a as usize];
                let total = lanes_of(mask)
                    .map(|lane| u64::from(values[lane]))
                    .reduce(|x, y| apply(op, ty, x, y, 0) & 0xffff_ffff);
                blend(&mut warp.registers.narrow[d as usize], &[total.unwrap_or(0) as u32; LANES], mask);
            }
            _ => {}
        }
    }

    /// PTX ISA, "shfl.sync": bits 0-4 of `c` clamp the source lane, bits 8-12 split the warp into segments.
    fn shuffle(&mut self, warp: &mut Warp, mask: u32, op: ShuffleOp, (d, p): (Reg, Option<Reg>), s: [Reg; 3]) {
        let [a, b, c] = s.map(|reg| warp.registers.narrow[reg as usize]);
        let mut value = a;
        let mut inside = 0;
        for lane in lanes_of(mask) {
            let (clamp, segment) = (c[lane] & 31, c[lane] >> 8 & 31);
            let most = (lane as u32 & segment) | (clamp & !segment);
            let least = lane as u32 & segment;
            let (source, valid) = match op {
                ShuffleOp::Up => {
                    let source = lane as i64 - i64::from(b[lane] & 31);
                    (source as u32, source >= i64::from(most))
                }
                ShuffleOp::Down => {
                    let source = lane as u32 + (b[lane] & 31);
                    (source, source <= most)
                }
                ShuffleOp::Butterfly => {
                    let source = lane as u32 ^ (b[lane] & 31);
                    (source, source <= most)
                }
                ShuffleOp::Index => {
                    let source = least | (b[lane] & 31 & !segment);
                    (source, source <= most)
                }
            };
            if !valid {
                continue;
            }
            inside |= 1 << lane;
            if mask >> source & 1 == 0 {
                let detail = format!("lane {lane} reads lane {source}, which does not execute the shuffle");
                self.report(warp, lane, ViolationKind::BadShuffle, detail);
            }
            value[lane] = a[source as usize];
        }
        blend(&mut warp.registers.narrow[d as usize], &value, mask);
        p.iter().for_each(|p| warp.registers.set_predicate(*p, mask, inside));
    }
}
