//! The checksums over uncompressed data. Each goes on from the one before.

/// Which CRC a descriptor asks for (the flag `CRC Select`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crc {
    /// CRC-32, as of gzip: polynomial 0x04c11db7, reflected.
    Crc32,
    /// CRC-32C of RFC 3720: polynomial 0x1edc6f41, reflected.
    Crc32c,
}

impl Crc {
    /// The CRC of what `crc` is of and `data` behind it; that of nothing is 0.
    pub(crate) fn update(self, crc: u32, data: &[u8]) -> u32 {
        let tables = match self {
            Self::Crc32 => &CRC32,
            Self::Crc32c => &CRC32C,
        };
        let mut words = data.chunks_exact(8);
        let mut crc = !crc;
        for word in &mut words {
            let low = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            crc = tables[7][(low & 0xff) as usize]
                ^ tables[6][(low >> 8 & 0xff) as usize]
                ^ tables[5][(low >> 16 & 0xff) as usize]
                ^ tables[4][(low >> 24) as usize]
                ^ tables[3][usize::from(word[4])]
                ^ tables[2][usize::from(word[5])]
                ^ tables[1][usize::from(word[6])]
                ^ tables[0][usize::from(word[7])];
        }
        for byte in words.remainder() {
            crc = tables[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8;
        }
        !crc
    }
}

/// The XOR of 16-bit words, little endian; a last odd byte counts as the low one of a word.
pub(crate) fn xor(checksum: u16, data: &[u8]) -> u16 {
    let mut words = data.chunks_exact(8);
    let wide = words.by_ref().fold(0, |wide, word| {
        wide ^ u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes"))
    });
    let folded = wide ^ wide >> 32;
    words.remainder().chunks(2).fold(checksum ^ (folded ^ folded >> 16) as u16, |checksum, pair| {
        checksum ^ u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])
    })
}

type Tables = [[u32; 256]; 8];

static CRC32: Tables = tables(0xedb8_8320);
static CRC32C: Tables = tables(0x82f6_3b78);

/// `tables[n][byte]`: what a byte does to the CRC when `n` bytes follow it.
const fn tables(polynomial: u32) -> Tables {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { polynomial } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut following = 1;
    while following < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[following - 1][byte];
            tables[following][byte] = tables[0][(before & 0xff) as usize] ^ before >> 8;
            byte += 1;
        }
        following += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crcs_have_the_published_check_values() {
        assert_eq!(Crc::Crc32.update(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(Crc::Crc32c.update(0, b"123456789"), 0xe306_9283);
        assert_eq!(Crc::Crc32c.update(0, &[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
        assert_eq!(Crc::Crc32c.update(0, &[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
    }

    #[test]
    fn a_crc_goes_on_from_any_byte() {
        let data: Vec<u8> = (0..100_u8).map(|byte| byte.wrapping_mul(37)).collect();
        for crc in [Crc::Crc32, Crc::Crc32c] {
            let whole = crc.update(0, &data);
            for split in 0..data.len() {
                assert_eq!(crc.update(crc.update(0, &data[..split]), &data[split..]), whole);
            }
        }
    }

    #[test]
    fn the_xor_checksum_is_that_of_words() {
        assert_eq!(xor(0, &[]), 0);
        assert_eq!(xor(0x1234, &[]), 0x1234);
        assert_eq!(xor(0, &[0x34, 0x12]), 0x1234);
        assert_eq!(xor(0, &[0x34, 0x12, 0x01]), 0x1235);
        let data: Vec<u8> = (0..37_u8).map(|byte| byte.wrapping_mul(91)).collect();
        let one_by_one = data.chunks(2).fold(7, xor);
        assert_eq!(xor(7, &data), one_by_one);
        assert_ne!(one_by_one, 7);
    }
}
