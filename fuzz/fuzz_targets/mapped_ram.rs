#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| multifd_fuzz_targets::mapped_ram(input));
