//! The instruction ENQCMD, from its bytes: Intel's Software Developer's Manual, volume 2.

/// A processor's general registers, in the order of their numbers in instructions: RAX, RCX, RDX, RBX,
/// RSP, RBP, RSI, RDI, R8 to R15.
pub(super) type Registers = [u64; 16];

/// The longest instruction, in bytes.
pub(super) const LONGEST: usize = 15;

/// An ENQCMD and its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enqcmd {
    /// The address of the queue's portal.
    pub(super) portal: u64,
    /// The address of the descriptor.
    pub(super) descriptor: u64,
    /// Bytes of the instruction.
    pub(super) length: usize,
}

impl Enqcmd {
    /// The one at `rip` whose bytes `code` begins with, if it is one: `f2 [rex] 0f 38 f8 /r`, with 64-bit
    /// addresses and no segment.
    pub(super) fn decode(code: &[u8], rip: u64, registers: &Registers) -> Option<Self> {
        let mut bytes = Bytes { code, at: 0 };
        if bytes.next()? != 0xf2 {
            return None;
        }
        let mut byte = bytes.next()?;
        let mut rex = 0;
        if byte & 0xf0 == 0x40 {
            rex = byte;
            byte = bytes.next()?;
        }
        if (byte, bytes.next()?, bytes.next()?) != (0x0f, 0x38, 0xf8) {
            return None;
        }
        let modrm = bytes.next()?;
        let register = |low: u8, extended: bool| {
            registers[usize::from(low & 7) + if extended { 8 } else { 0 }]
        };
        let (rex_r, rex_x, rex_b) = (rex & 4 != 0, rex & 2 != 0, rex & 1 != 0);
        let portal = register(modrm >> 3, rex_r);
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut is_relative = false;
        let base = match (mode, rm) {
            // A register, which is not memory.
            (3, _) => return None,
            (_, 4) => {
                let sib = bytes.next()?;
                let index = match (sib >> 3 & 7, rex_x) {
                    (4, false) => 0,
                    (index, extended) => register(index, extended) << (sib >> 6),
                };
                match (mode, sib & 7) {
                    (0, 5) => index.wrapping_add_signed(bytes.displacement(4)?),
                    (_, base) => index.wrapping_add(register(base, rex_b)),
                }
            }
            (0, 5) => {
                is_relative = true;
                0_u64.wrapping_add_signed(bytes.displacement(4)?)
            }
            (_, rm) => register(rm, rex_b),
        };
        let displacement = match mode {
            1 => bytes.displacement(1)?,
            2 => bytes.displacement(4)?,
            _ => 0,
        };
        let length = bytes.at;
        let behind = if is_relative { rip.wrapping_add(length as u64) } else { 0 };
        let descriptor = base.wrapping_add_signed(displacement).wrapping_add(behind);
        Some(Self { portal, descriptor, length })
    }
}

struct Bytes<'a> {
    code: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn displacement(&mut self, bytes: usize) -> Option<i64> {
        if bytes == 1 {
            return self.next().map(|byte| i64::from(byte as i8));
        }
        let bytes = [self.next()?, self.next()?, self.next()?, self.next()?];
        Some(i64::from(i32::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        std::array::from_fn(|number| 0x1000 * (number as u64 + 1))
    }

    /// Portal, descriptor and length, as an assembler's bytes say.
    fn decode(code: &[u8]) -> Option<(u64, u64, usize)> {
        let enqcmd = Enqcmd::decode(code, 0x40_0000, &registers())?;
        Some((enqcmd.portal, enqcmd.descriptor, enqcmd.length))
    }

    #[test]
    fn operands_are_where_an_assembler_puts_them() {
        for (code, expected) in [
            // enqcmd rax, [rdx]
            (&b"\xf2\x0f\x38\xf8\x02"[..], (0x1000, 0x3000, 5)),
            // enqcmd rdi, [rsi + 0x10]
            (b"\xf2\x0f\x38\xf8\x7e\x10", (0x8000, 0x7010, 6)),
            // enqcmd rcx, [rbp - 0x40]
            (b"\xf2\x0f\x38\xf8\x4d\xc0", (0x2000, 0x5fc0, 6)),
            // enqcmd rax, [rbx + 0x12345]
            (b"\xf2\x0f\x38\xf8\x83\x45\x23\x01\x00", (0x1000, 0x16345, 9)),
            // enqcmd rax, [rsp]
            (b"\xf2\x0f\x38\xf8\x04\x24", (0x1000, 0x5000, 6)),
            // enqcmd rax, [rsp + rcx * 4 + 8]
            (b"\xf2\x0f\x38\xf8\x44\x8c\x08", (0x1000, 0xd008, 7)),
            // enqcmd r9, [r10]
            (b"\xf2\x45\x0f\x38\xf8\x0a", (0xa000, 0xb000, 6)),
            // enqcmd rax, [rip + 0x20]
            (b"\xf2\x0f\x38\xf8\x05\x20\x00\x00\x00", (0x1000, 0x40_0029, 9)),
            // enqcmd rax, [0x1234]
            (b"\xf2\x0f\x38\xf8\x04\x25\x34\x12\x00\x00", (0x1000, 0x1234, 10)),
            // enqcmd rax, [r12 * 8 + r13 + 0]
            (b"\xf2\x43\x0f\x38\xf8\x44\xe5\x00", (0x1000, 0x7_6000, 8)),
        ] {
            assert_eq!(decode(code), Some(expected), "{code:02x?}");
            assert_eq!(decode(&code[..code.len() - 1]), None, "{code:02x?} cut");
        }
    }

    #[test]
    fn another_instruction_is_not_one() {
        for code in [
            &b"\x0f\x0b\x00\x00\x00\x00"[..], // ud2
            b"\xf3\x0f\x38\xf8\x02",          // enqcmds
            b"\x66\x0f\x38\xf8\x02",          // movdir64b
            b"\xf2\x0f\x38\xf8\xc2",          // no memory
            b"\xf2\x0f\x38\xf1\x02",          // crc32
            b"\xf2\x0f\x10\x02\x00",          // movsd
        ] {
            assert_eq!(decode(code), None, "{code:02x?}");
        }
    }
}
