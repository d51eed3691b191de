//! Bytes that no honest peer sends. Each is answered with an error that blames the peer and says
//! where, or with a whole packet; never with a panic, a hang, or a byte written anywhere else.
//!
//! A codec without checksums cannot know that a bit of its payload was flipped: that it then gives
//! other pages of the right size is allowed.

mod lengths;
mod payload;
mod refusals;
mod scene;
mod truncation;

pub(crate) use lengths::counts_and_sizes_that_lie_are_refused;
pub(crate) use payload::{
    a_changed_word_of_payload_gives_an_error_or_a_whole_packet,
    a_flipped_bit_gives_an_error_or_a_whole_packet, a_payload_of_noise_is_refused,
    bytes_behind_the_payload_are_not_ignored,
};
pub(crate) use refusals::{
    a_packet_for_an_unknown_block_is_refused, a_packet_of_another_codec_is_refused,
    an_offset_past_the_end_of_the_block_is_refused,
};
pub(crate) use scene::Scene;
pub(crate) use truncation::{
    a_packet_cut_short_at_any_byte_is_refused, a_payload_that_is_cut_short_is_refused,
};
