//! The codes' lengths.

use super::{CODES, Lengths, USED};

/// For bytes 0 to 255, the end, lengths and distances, of what was memory of a Linux guest, of programs and of text: made by
/// `train`.
pub(super) static LENGTHS: [&Lengths; CODES] = [
    &parse(b"\
        256667787877776778788898788889987888889989999999789999998999999977798899789989998999999999999aa98999\
        989989a999998999889999aa99a98997999a98a89899899a9aaa9aaa9aaa8aa99aaa9aaa9aaa9aaaaaaa9aaa9aaa89999a99\
        9aaa9aaa899a9aaa9aaa9aaa8a9a9aaa88a99aaa8a9a9a9999999986abbbb799a9aababbbbbbbbbbbbbbb834777544444545\
        5555555556888888"),
    &parse(b"\
        5aaaaaaaaa7aaaaa9a9aaaaaaaaaaaaa59aaaaaaaaaa7a6854445555555aa8aaaabbbbbbbb9bbbbbbbbbbbbbbbb7b8bbb7b7\
        76b888b988667a7669bb99bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbabbbbbbbbbbbbbbbabbbb567656697898ababbbbbbbbb757777577777545\
        4434344446777788"),
    &parse(b"\
        aaaaaaaaaa5aaaaaaaaaaaaaaaaaaaaa3a8abbbb99ab787878899aaaa98aa9abb687767876ba68667b666798a8bbbbb7b576\
        647765b967557b55568897bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb999988899aabbbbbbbbbbbbbb77777776653544\
        4434444556888888"),
    &parse(b"\
        3677788868888899798999aa8aaaaaaa79aa9aaa8aaa9a9a8aaaaaaa7aaa9aaa7aaa9aaa7aaa6bab8aaaaaaa8aaaaaa989aa\
        99aa899a9a9a8a999aaa8abaabba7abaabbb7b7aaa9a8aababaa8abbabab7aaa9baa8baa9aab8abaabaa8aaaabbb78aaaaab\
        79ababaa8aaaaaaa8a999a987aababaa8baaaaba8aaaaaaa8aaaaaa5abbbb34885749869887aaabbabbbbb74777377264445\
        5556465667888888"),
    &parse(b"\
        aaaaaaaaaa5aaaaaaaaaaaaaaaaaaaaa3987aa99778b7876888888888869999bb9a9999ba9bb99999b989aabbbb8a8b77576\
        646765a856556a55468787a9b9bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb8888889999a98bbbbbbbbbbbb76788887665445\
        3444344446888888"),
    &parse(b"\
        59aaaaaaaa7aaaaaaaaaaaaaaaaaaaaa5aabb8baaabba88877788989899bbabbb8989799a8ba89898b878aaaababbbb5b565\
        546675a7565559554678779bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
        bbbbbbbbbbabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb8bbbbb778877777888889aabbbbbbbb76777776553444\
        4444444556778888"),
    &parse(b"\
        3567678868898895799a9aaa8abaaab78abb59bb89baaa9a87baa9bb98b999ba86a967a947aa68aa8bb988999bb9989a9bba\
        9a7b9bbb9baa9baa78aa9bba8aaa89a666aa95a5a6aa9bbbaabbabbbbbbbabbbbbbbabbbabbbabbbab9a9a9a9a9a77989987\
        99ab9aaa9a9abaaa9aaabaa88a9aaa99679899988a99aa8989999985bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb77777766554544\
        4434444456778888"),
    &parse(b"\
        47788888888989887989999999aaaa9a8a9aaaaa9aaaaa9a68898988889aaaa67aaaaaaa9aaaaa9a7a9aaaaa9aaaaaa98999\
        989a999999996a99999a99aa9a967a9a9a9a9a9aaa9a7aaaaaaa999aa98888887a9a9aaa9999699a9a9a999a9a99799a9a9a\
        999a9999796999999999999989999999999999996aaaaaaa9aaaaa98abbbb3467975875a87abbbb8bbbbbb73777375545544\
        4435566767888888"),
];

/// A digit for each length, `a` and `b` for 10 and 11.
const fn parse(digits: &[u8; USED]) -> Lengths {
    let mut lengths = [0; USED];
    let mut at = 0;
    while at < USED {
        lengths[at] = match digits[at] {
            digit @ b'1'..=b'9' => digit - b'0',
            b'a' => 10,
            b'b' => 11,
            _ => panic!("not a length"),
        };
        at += 1;
    }
    lengths
}
