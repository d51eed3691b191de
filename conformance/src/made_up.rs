//! Memory made up in place of a guest's: always the same for one seed. For demonstrations and
//! benches that have no real guest at hand; the suite has content of its own.

/// Pages that have one kind of content together: the memory of a guest comes in runs.
const RUN: u64 = 8;

/// Fills `page` with the made-up guest's page number `index`.
///
/// A little more than half of the pages are zero. The others are log lines, tables of pointers,
/// machine code, noise, and pages of which only the head is used.
pub fn fill(page: &mut [u8], seed: u64, index: u64) {
    let kind = Noise::new(seed, !(index / RUN)).below(100);
    let mut noise = Noise::new(seed, index);
    match kind {
        0..52 => page.fill(0),
        52..67 => text(page, &mut noise),
        67..79 => pointers(page, &mut noise),
        79..89 => code(page, &mut noise),
        89..93 => noise.fill(page),
        _ => fill_head(page, &mut noise),
    }
}

/// Fills `page` with data: a page that is not zero.
pub fn fill_with_data(page: &mut [u8], seed: u64, index: u64) {
    text(page, &mut Noise::new(seed, index));
}

/// The generator of Steele, Lea and Flood (`SplitMix64`).
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// The series with the number `series` of `seed`.
    pub fn new(seed: u64, series: u64) -> Self {
        let mut noise = Self(seed ^ series.wrapping_mul(0xd1b5_4a32_d192_ed03));
        noise.next();
        noise
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number, in 0 to `end - 1`.
    ///
    /// # Panics
    /// Where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            let value = self.next().to_le_bytes();
            word.copy_from_slice(&value[..word.len()]);
        }
    }
}

/// Lines of a log: few words, many numbers.
fn text(page: &mut [u8], noise: &mut Noise) {
    const WORDS: [&str; 16] = [
        "kernel: ",
        "systemd[1]: ",
        "Started ",
        "Stopped ",
        "session ",
        "of user ",
        "device ",
        "eth0: ",
        "link is ",
        "up ",
        "error ",
        "read ",
        "write ",
        "timeout ",
        "level=info ",
        "\n",
    ];
    let mut at = 0;
    while at < page.len() {
        let number;
        let word = match noise.below(3) {
            0 => {
                number = format!("{} ", noise.below(1_000_000));
                &number
            }
            _ => WORDS[noise.below(16) as usize],
        };
        let count = word.len().min(page.len() - at);
        page[at..at + count].copy_from_slice(&word.as_bytes()[..count]);
        at += count;
    }
}

/// Addresses of one heap, small numbers and empty fields.
fn pointers(page: &mut [u8], noise: &mut Noise) {
    let heap = 0xffff_8880_0000_0000 | (noise.below(1 << 16) << 20);
    for word in page.chunks_exact_mut(8) {
        let value: u64 = match noise.below(4) {
            0 => 0,
            1 => noise.below(256),
            _ => heap + noise.below(1 << 14) * 8,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Few opcodes, registers and near distances, as machine code has them.
fn code(page: &mut [u8], noise: &mut Noise) {
    const OPCODES: [&[u8]; 8] = [
        &[0x48, 0x89],
        &[0x48, 0x8b],
        &[0xe8],
        &[0x0f, 0x84],
        &[0x48, 0x83],
        &[0x5d, 0xc3],
        &[0x31, 0xc0],
        &[0x66, 0x90],
    ];
    let mut at = 0;
    while at < page.len() {
        let operand = (noise.below(1 << 12) as u32).to_le_bytes();
        let opcode = OPCODES[noise.below(8) as usize];
        let operand = &operand[..noise.below(5) as usize];
        for byte in opcode.iter().chain(operand).take(page.len() - at) {
            page[at] = *byte;
            at += 1;
        }
    }
}

/// A short record at the start, and zeros.
fn fill_head(page: &mut [u8], noise: &mut Noise) {
    page.fill(0);
    let used = 64 + noise.below(512) as usize;
    text(&mut page[..used], noise);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seed: u64, index: u64) -> Vec<u8> {
        let mut page = vec![0xaa; 4096];
        fill(&mut page, seed, index);
        page
    }

    #[test]
    fn one_seed_gives_one_memory_and_another_seed_another() {
        assert!((0..500).all(|index| page(1, index) == page(1, index)));
        assert!((0..500).any(|index| page(1, index) != page(2, index)));
    }

    #[test]
    fn about_half_of_the_pages_are_zero() {
        let zeros = (0..20_000).filter(|&index| page(7, index).iter().all(|&byte| byte == 0));
        let zeros = zeros.count();
        assert!((9_000..12_500).contains(&zeros), "{zeros}");
    }

    #[test]
    fn a_page_of_data_is_never_zero() {
        for index in 0..1000 {
            let mut page = vec![0; 4096];
            fill_with_data(&mut page, 3, index);
            assert!(page.iter().any(|&byte| byte != 0));
        }
    }
}
