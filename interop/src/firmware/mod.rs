//! The guest: a firmware that fills memory and then changes some of it for ever.
//!
//! It needs no device and no interrupt, so that a QEMU without any devices runs it. It fills memory
//! once with pages of all kinds, then goes round and round: each round writes two words in every
//! page of [`DIRTIED`], turns every page of [`TOGGLED`] to zero or back, and writes its number to
//! [`COUNTER`]. All addresses are physical.

mod code;

use std::ops::Range;

use code::Code;

/// The size of the image.
pub const BYTES: usize = 64 << 10;

/// Where the guest keeps the number of its last round, 32 bits, little-endian.
pub const COUNTER: u32 = 0x8000;

/// Pages of noise, which no codec makes smaller.
pub const NOISE: Range<u32> = 0x10_0000..0x20_0000;

/// Pages of words, as text has them. The last part of them is [`DIRTIED`].
pub const TEXT: Range<u32> = 0x20_0000..0x60_0000;

/// Pages of which each round changes the first two words.
pub const DIRTIED: Range<u32> = 0x50_0000..0x60_0000;

/// Pages that are zero but for one word.
pub const SPARSE: Range<u32> = 0x60_0000..0x68_0000;

/// Pages that are zero after every other round, and have one word after the rounds between.
pub const TOGGLED: Range<u32> = 0x68_0000..0x70_0000;

/// From here on memory stays zero. The least RAM is so much.
pub const END: u32 = TOGGLED.end;

/// Where the image's first byte is in the guest's memory: it ends at 1 MiB.
const BASE: u32 = 0xf_0000;

/// Where the processor starts, in the image: at physical address 0xFFFF0.
const RESET: usize = 0xfff0;

const PAGE: u32 = 4096;

/// The image, to be given to `qemu-system-x86_64 -bios`.
pub fn image() -> Vec<u8> {
    // hlt, where nothing is.
    let mut image = vec![0xf4; BYTES];
    let code = program();
    image[..code.len()].copy_from_slice(&code);
    // jmp f000:0000
    image[RESET..RESET + 5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    image
}

fn program() -> Vec<u8> {
    let mut code = Code::new(BASE);
    enter_protected_mode(&mut code);
    fill_with_noise(&mut code);
    fill_with_text(&mut code);
    fill_sparsely(&mut code);
    go_round(&mut code);
    code.finish()
}

/// From real mode into 32-bit protected mode, where the whole memory is in reach. All segments
/// start at 0.
fn enter_protected_mode(code: &mut Code) {
    let null = [0; 8];
    let code_segment = [0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00];
    let data_segment = [0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00];
    let table = code.data(&[null, code_segment, data_segment].concat());
    let pointer = code.data(&[&[0x17, 0x00][..], &table.to_le_bytes()].concat());
    let [offset_low, offset_high, ..] = (pointer - BASE).to_le_bytes();

    code.emit(&[0xfa, 0xfc]); // cli; cld
    code.emit(&[0x2e, 0x66, 0x0f, 0x01, 0x16, offset_low, offset_high]); // lgdt cs:[pointer]
    code.emit(&[0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.emit(&[0x0c, 0x01]); // or al, 1
    code.emit(&[0x0f, 0x22, 0xc0]); // mov cr0, eax
    let next = code.here() + 8;
    code.emit(&[0x66, 0xea]).word(next).emit(&[0x08, 0x00]); // jmp 0008:next
    code.emit(&[0x66, 0xb8, 0x10, 0x00]); // mov ax, 0010
    code.emit(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ds, ax; mov es, ax; mov ss, ax
}

/// Xorshift, 32 bits.
fn fill_with_noise(code: &mut Code) {
    code.emit(&[0xbb]).word(0x2545_f491); // mov ebx, SEED
    code.for_each(&NOISE, 4, |code| {
        for shift in [[0xe0, 13], [0xe8, 17], [0xe0, 5]] {
            code.emit(&[0x89, 0xd8, 0xc1]).emit(&shift); // mov eax, ebx; shl or shr eax, N
            code.emit(&[0x31, 0xc3]); // xor ebx, eax
        }
        code.emit(&[0x89, 0x1f]); // mov [edi], ebx
    });
}

/// Sixteen words in the order of a linear congruential generator.
fn fill_with_text(code: &mut Code) {
    let words = b"the page of a guest that went on in our new home, all of it too.";
    let words = code.data(words);
    code.emit(&[0xbb]).word(1); // mov ebx, 1
    code.for_each(&TEXT, 4, |code| {
        code.emit(&[0x69, 0xdb]).word(1_664_525); // imul ebx, ebx, 1664525
        code.emit(&[0x81, 0xc3]).word(1_013_904_223); // add ebx, 1013904223
        code.emit(&[0x89, 0xd8, 0xc1, 0xe8, 28]); // mov eax, ebx; shr eax, 28
        code.emit(&[0x8b, 0x04, 0x85]).word(words); // mov eax, [words + 4 * eax]
        code.emit(&[0x89, 0x07]); // mov [edi], eax
    });
}

fn fill_sparsely(code: &mut Code) {
    code.for_each(&SPARSE, PAGE, |code| {
        code.emit(&[0x89, 0x3f]); // mov [edi], edi
    });
}

fn go_round(code: &mut Code) {
    code.emit(&[0x31, 0xdb]); // xor ebx, ebx
    let round = code.here();
    code.emit(&[0x43]); // inc ebx
    code.for_each(&DIRTIED, PAGE, |code| {
        code.emit(&[0x89, 0x1f]); // mov [edi], ebx
        code.emit(&[0x89, 0x7f, 0x04]); // mov [edi + 4], edi
    });
    code.emit(&[0x89, 0xd8, 0x83, 0xe0, 0x01]); // mov eax, ebx; and eax, 1
    code.for_each(&TOGGLED, PAGE, |code| {
        code.emit(&[0x89, 0x87]).word(PAGE / 2); // mov [edi + 2048], eax
    });
    code.emit(&[0x89, 0x1d]).word(COUNTER); // mov [COUNTER], ebx
    code.jump(round);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_starts_at_a_jump_to_the_start_of_the_image() {
        let image = image();
        assert_eq!(image.len(), 64 << 10);
        assert_eq!(image[0xfff0..0xfff5], [0xea, 0x00, 0x00, 0x00, 0xf0]);
        assert_ne!(image[0], 0xf4);
        assert!(program().len() < RESET);
    }

    #[test]
    fn the_ranges_follow_each_other_and_the_dirtied_one_is_of_text() {
        assert!(NOISE.end <= TEXT.start && TEXT.end <= SPARSE.start);
        assert!(TEXT.start < DIRTIED.start && DIRTIED.end <= TEXT.end);
        assert!(SPARSE.end <= TOGGLED.start && END <= 16 << 20);
    }
}
