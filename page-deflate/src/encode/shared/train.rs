//! How the codes are made: `PAGE_DEFLATE_TRAIN='IMAGE …' cargo test --release -p page-deflate --lib -- --ignored
//! --nocapture codes_of_images` prints what goes into `lengths.rs`.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use super::*;
use crate::encode::fast::{HASHED, PATIENCE};
use crate::encode::header::{DISTANCE_LONGEST, LITLEN_LONGEST};
use crate::encode::search::{Match, Search};
use crate::symbols;

/// How often each symbol occurs.
type Counts = [u32; USED];

const PAGE: usize = 4096;

/// Pages that codes are made of: no more take part.
const PAGES: usize = 16_384;

fn count(search: &mut Search, page: &[u8]) -> Counts {
    let mut counts = [0; USED];
    counts[END] = 1;
    let mut taken = 0;
    search.start();
    while let Some(Match { bytes, distance }) = search.next::<HASHED, PATIENCE>(page, taken) {
        page[taken..bytes.start].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        Match::parts(bytes.len(), |length| {
            counts[symbols::of_length(length)] += 1;
            counts[LITLEN_USED + symbols::of_distance(distance)] += 1;
        });
        taken = bytes.end;
    }
    page[taken..].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    counts
}

fn cost(counts: &Counts, lengths: &Lengths) -> u32 {
    counts.iter().zip(lengths).map(|(&count, &length)| count * u32::from(length)).sum()
}

/// A code for what occurs in these pages, and, rarely, for everything else.
fn code(pages: &[&Counts]) -> Lengths {
    let mut sums = [0_u64; USED];
    for counts in pages {
        sums.iter_mut().zip(*counts).for_each(|(sum, &count)| *sum += u64::from(count));
    }
    let rare = pages.len().div_ceil(60) as u64;
    let mut lengths = [0; USED];
    let parts = [(0..LITLEN_USED, LITLEN_LONGEST), (LITLEN_USED..USED, DISTANCE_LONGEST)];
    for (part, longest) in parts {
        let total: u64 = sums[part.clone()].iter().map(|sum| sum + rare).sum();
        let mut frequencies = [0; LITLEN];
        for (frequency, sum) in frequencies.iter_mut().zip(&sums[part.clone()]) {
            *frequency = ((sum + rare) * 60_000 / total).max(1) as u16;
        }
        let mut code = Code::<LITLEN>::new();
        code.fit(&frequencies, longest);
        let count = part.len();
        lengths[part].copy_from_slice(&code.lengths()[..count]);
    }
    lengths
}

#[test]
#[ignore = "prints codes, of the images that PAGE_DEFLATE_TRAIN names"]
fn codes_of_images() {
    let images = std::env::var("PAGE_DEFLATE_TRAIN").expect("PAGE_DEFLATE_TRAIN names images");
    let images: Vec<_> = images.split_whitespace().collect();
    let mut search = Search::new(PAGE);
    let mut pages = Vec::new();
    for image in &images {
        let image = std::fs::read(image).expect("an image");
        let normal: Vec<_> =
            image.chunks_exact(PAGE).filter(|page| page.iter().any(|&it| it != 0)).collect();
        let step = (normal.len() * images.len() / PAGES).max(1);
        pages.extend(normal.into_iter().step_by(step).map(|page| count(&mut search, page)));
    }
    let evenly = |offset: usize| pages.iter().skip(offset).step_by(CODES).collect::<Vec<_>>();
    // At first from neighbours, which are of a kind.
    let part = pages.len() / CODES;
    let mut codes: [Lengths; CODES] = std::array::from_fn(|at| {
        code(&pages[at * part..][..part.min(64)].iter().collect::<Vec<_>>())
    });
    for _ in 0..20 {
        let mut groups: [Vec<&Counts>; CODES] = std::array::from_fn(|_| Vec::new());
        for page in &pages {
            let best = (0..CODES).min_by_key(|&at| cost(page, &codes[at])).unwrap_or_default();
            // What does not shrink needs no code.
            if cost(page, &codes[best]) < 8 * PAGE as u32 {
                groups[best].push(page);
            }
        }
        codes = std::array::from_fn(|at| match &groups[at][..] {
            few if few.len() < 32 => code(&evenly(at)),
            group => code(group),
        });
        println!("{:?}", groups.map(|group| group.len()));
    }
    for lengths in codes {
        let digits = lengths.map(|length| char::from(b"0123456789ab"[usize::from(length)]));
        let lines: Vec<String> = digits.chunks(100).map(|line| line.iter().collect()).collect();
        println!("    parse(b\"\\\n        {}\"),", lines.join("\\\n        "));
    }
}
