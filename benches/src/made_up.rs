//! Memory made up in place of a guest's: always the same.

use crate::guest::PAGE_BYTES;

/// `bytes` bytes of memory, a little more than half of its pages zero. In the rest: log lines,
/// pointer tables, noise, pages of one byte, and pages of which only the head is used.
pub(crate) fn memory(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for page in memory.chunks_exact_mut(PAGE_BYTES) {
        match noise.below(100) {
            0..55 => {}
            55..72 => text(page, &mut noise),
            72..85 => pointers(page, &mut noise),
            85..90 => page.fill_with(|| noise.next() as u8),
            90..92 => page.fill(noise.next() as u8 | 1),
            _ => {
                let used = 64 + noise.below(512) as usize;
                text(&mut page[..used], &mut noise);
            }
        }
    }
    memory
}

/// Marsaglia's xorshift64*.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn text(page: &mut [u8], noise: &mut Noise) {
    const WORDS: [&str; 16] = [
        "kernel: ",
        "systemd[1]: ",
        "Started ",
        "Stopped ",
        "session ",
        "of user ",
        "device ",
        "eth0 ",
        "link is ",
        "up ",
        "error ",
        "read ",
        "write ",
        "timeout ",
        "\n",
        "\n",
    ];
    let mut at = 0;
    while at < page.len() {
        let number;
        let word = match noise.below(4) {
            0 => {
                number = format!("{} ", noise.below(100_000));
                &number
            }
            _ => WORDS[noise.below(16) as usize],
        };
        let count = word.len().min(page.len() - at);
        page[at..at + count].copy_from_slice(&word.as_bytes()[..count]);
        at += count;
    }
}

fn pointers(page: &mut [u8], noise: &mut Noise) {
    let heap = 0xffff_8880_0000_0000 | noise.below(1 << 24) << 12;
    for word in page.chunks_exact_mut(8) {
        let value = match noise.below(4) {
            0 => 0,
            1 => noise.below(256),
            _ => heap + noise.below(1 << 12) * 8,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_always_the_same_and_a_little_more_than_half_zero() {
        let memory = memory(16 << 20);
        let zero = |page: &&[u8]| page.iter().all(|&byte| byte == 0);
        let zero_pages = memory.chunks_exact(PAGE_BYTES).filter(zero).count();
        assert!((2150..2400).contains(&zero_pages), "{zero_pages} of 4096");
        assert!(memory == super::memory(16 << 20));
    }
}
