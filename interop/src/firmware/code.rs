//! Machine code, as far as the guest needs it.

use std::ops::Range;

/// Code under construction, with the data that it uses behind it.
#[derive(Debug)]
pub(super) struct Code {
    base: u32,
    code: Vec<u8>,
    data: Vec<u8>,
}

/// Where data starts, in the image. Code stays below.
const DATA: u32 = 0x1000;

impl Code {
    /// Code that will be at the address `base`.
    pub(super) fn new(base: u32) -> Self {
        Self { base, code: Vec::new(), data: Vec::new() }
    }

    /// The address of the next instruction.
    pub(super) fn here(&self) -> u32 {
        self.base + self.code.len() as u32
    }

    pub(super) fn emit(&mut self, bytes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(bytes);
        self
    }

    /// Appends an operand of 32 bits.
    pub(super) fn word(&mut self, word: u32) -> &mut Self {
        self.emit(&word.to_le_bytes())
    }

    /// Puts data aside and gives its address.
    pub(super) fn data(&mut self, bytes: &[u8]) -> u32 {
        let address = self.base + DATA + self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        address
    }

    /// `body` for every address of the range, in EDI.
    pub(super) fn for_each(&mut self, range: &Range<u32>, step: u32, body: impl Fn(&mut Self)) {
        self.emit(&[0xbf]).word(range.start); // mov edi, START
        let again = self.here();
        body(self);
        self.emit(&[0x81, 0xc7]).word(step); // add edi, STEP
        self.emit(&[0x81, 0xff]).word(range.end); // cmp edi, END
        self.emit(&[0x0f, 0x85]); // jne again
        self.relative(again);
    }

    pub(super) fn jump(&mut self, to: u32) {
        self.emit(&[0xe9]);
        self.relative(to);
    }

    /// The distance to `to` from behind itself.
    fn relative(&mut self, to: u32) {
        let next = self.here() + 4;
        self.word(to.wrapping_sub(next));
    }

    /// Code and data as one piece, to be put at the base address.
    pub(super) fn finish(self) -> Vec<u8> {
        let Self { mut code, data, .. } = self;
        assert!(code.len() <= DATA as usize, "the code runs into its data");
        code.resize(DATA as usize, 0xf4);
        code.extend(data);
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_back_counts_from_behind_itself() {
        let mut code = Code::new(0xf_0000);
        let here = code.here();
        code.emit(&[0x90]).jump(here);
        assert_eq!(code.finish()[..6], [0x90, 0xe9, 0xfa, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn data_is_behind_the_code_at_the_address_that_was_given() {
        let mut code = Code::new(0xf_0000);
        code.data(&[1, 2]);
        let address = code.data(&[3]);
        code.emit(&[0x90]);
        let image = code.finish();
        assert_eq!(image[(address - 0xf_0000) as usize], 3);
    }
}
