//! The list of cases, and what makes tests of them.

use std::sync::Arc;

use multifd_core::MultiFdMethods;

use crate::case::cases;
use crate::report::Outcome;

/// Makes a test of every case of the suite, for one codec: a value that is [`MultiFdMethods`], or an
/// `Arc` of it. It is made anew for each test.
///
/// ```
/// # mod multifd_mine { pub use multifd_core::none::Plain as Mine; }
/// use multifd_mine::Mine;
///
/// multifd_conformance::suite!(Mine);
/// ```
///
/// That is the whole of `tests/conformance.rs`. The tests are called by their group and by what they
/// prove: `hostile::a_payload_that_is_cut_short_is_refused`.
///
/// A case that does not apply to the codec passes and prints why. A codec that is not available
/// on this machine fails every test, unless the environment variable
/// `MULTIFD_CONFORMANCE_ALLOW_UNAVAILABLE` is set to `1`: then they pass and print the reason.
///
/// For a codec that most machines do not have, `suite!(codec, skip: reason)` takes an
/// `Option<String>`: where there is a reason, each test prints it and passes.
///
/// A case that a codec cannot pass is left out, with the reason, by
/// `suite!(codec, skip: None, except: exceptions, heap: elsewhere)`: a `&'static [(&str, &str)]` of
/// `("hostile::a_payload_of_noise_is_refused", "why not")`. Prove what the codec does instead by a test.
///
/// The macro also sets the test program's allocator, to count what a decoder takes
/// ([`CountedHeap`](crate::CountedHeap)). A program has one: where it has another, and for all
/// suites but the first of one program, each in a module of its own, write
/// `suite!(codec, heap: elsewhere)` or `suite!(codec, skip: reason, heap: elsewhere)`.
#[macro_export]
macro_rules! suite {
    ($codec:expr $(, skip: $reason:expr)? $(,)?) => {
        #[cfg(test)]
        #[global_allocator]
        static HEAP: $crate::CountedHeap = $crate::CountedHeap::new();

        $crate::suite!($codec $(, skip: $reason)?, heap: elsewhere);
    };
    ($codec:expr, heap: elsewhere $(,)?) => {
        $crate::suite!($codec, skip: None, heap: elsewhere);
    };
    ($codec:expr, skip: $reason:expr, heap: elsewhere $(,)?) => {
        $crate::suite!($codec, skip: $reason, except: &[], heap: elsewhere);
    };
    ($codec:expr, skip: $reason:expr, except: $except:expr, heap: elsewhere $(,)?) => {
        #[cfg(test)]
        fn exceptions() -> &'static [(&'static str, &'static str)] {
            $except
        }

        #[cfg(test)]
        fn codec_under_test() -> Option<std::sync::Arc<dyn $crate::MultiFdMethods>> {
            let reason: Option<String> = $reason;
            match reason {
                None => Some(std::sync::Arc::new($codec)),
                Some(reason) => {
                    // Not by eprintln, which is captured: it is to be seen.
                    _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {reason}\n"));
                    None
                }
            }
        }
        $crate::__for_each_case!(__tests);
    };
}

/// Hands the list of all cases to a macro of this crate. The table of cases and the tests of
/// [`suite!`](crate::suite) are both made from it.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_case {
    ($then:ident) => {
        $crate::$then! {
            Descriptor descriptor {
                the_default_level_is_one_of_the_levels
                a_codec_of_qemus_bears_qemus_name
            }
            RoundTrip round_trip {
                packets_of_every_number_of_pages_come_back
                every_kind_of_content_comes_back_alone_and_mixed
                every_level_comes_back
                pages_in_any_order_of_offsets_land_at_their_own
                thousands_of_packets_on_one_stream_come_back
                repeats_across_packets_come_back
                packets_without_payload_leave_the_stream_as_it_was
                a_stream_that_arrives_in_pieces_comes_back
            }
            Golden golden {
                recordings_of_qemu_7_2_decode_to_the_ram_that_was_sent
                recordings_of_qemu_10_decode_to_the_ram_that_was_sent
                a_recording_that_arrives_in_pieces_decodes_to_the_same_ram
            }
            Independent independent {
                another_decoder_reads_the_stream_of_every_page_size
                another_decoder_reads_the_stream_of_every_level
                another_decoder_reads_the_stream_one_byte_at_a_time
                another_decoder_reads_the_stream_in_odd_pieces
                another_decoder_has_every_page_at_the_end_of_each_packet
                the_stream_of_another_encoder_comes_back
            }
            PayloadBounds payload_bounds {
                incompressible_pages_stay_within_the_bounds_at_every_level
                incompressible_pages_after_compressible_ones_stay_within_the_bounds
            }
            ZeroPages zero_pages {
                the_first_arrival_of_a_zero_page_leaves_fresh_memory_untouched
                the_first_arrival_of_a_zero_page_clears_memory_that_is_not_fresh
                a_later_arrival_of_a_zero_page_clears_the_page
                a_packet_of_zero_pages_alone_has_no_payload
                zero_pages_sent_as_normal_pages_clear_the_memory
            }
            Hostile hostile {
                counts_and_sizes_that_lie_are_refused
                a_packet_cut_short_at_any_byte_is_refused
                a_payload_that_is_cut_short_is_refused
                bytes_behind_the_payload_are_not_ignored
                a_payload_of_noise_is_refused
                a_changed_word_of_payload_gives_an_error_or_a_whole_packet
                a_flipped_bit_gives_an_error_or_a_whole_packet
                a_packet_of_another_codec_is_refused
                a_packet_for_an_unknown_block_is_refused
                an_offset_past_the_end_of_the_block_is_refused
            }
            Memory memory {
                no_hostile_packet_takes_more_memory_than_the_bound
                channels_that_end_in_errors_leave_no_memory_behind
            }
            ChangingPages changing_pages {
                a_page_that_changes_between_any_two_reads_arrives_as_one_read_of_it
                a_page_that_is_rewritten_while_it_is_sent_never_breaks_the_stream
            }
            Cleanup cleanup {
                a_channel_ends_cleanly_and_says_what_it_counted
                a_receiver_that_failed_can_be_cleaned_up_and_set_up_anew
                a_receiver_that_failed_can_be_dropped_and_set_up_anew
                a_sender_whose_stream_failed_can_be_cleaned_up_and_set_up_anew
                a_channel_that_was_never_used_ends_cleanly
            }
            Channels channels {
                two_channels_that_interleave_do_not_share_state
                a_channel_that_fails_or_ends_does_not_disturb_another
                two_channels_at_once_fill_one_memory
                two_channels_may_write_one_page_at_once
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($($group:ident $module:ident { $($case:ident)* })*) => {
        $(
            #[cfg(test)]
            mod $module {
                $(
                    #[test]
                    fn $case() {
                        if let Some(codec) = super::codec_under_test() {
                            let case = (stringify!($module), stringify!($case));
                            $crate::prove(&codec, case, super::exceptions());
                        }
                    }
                )*
            }
        )*
    };
}

/// Set to `1`, the tests of a codec that is not available pass.
const ALLOW_UNAVAILABLE: &str = "MULTIFD_CONFORMANCE_ALLOW_UNAVAILABLE";

/// The body of one test: panics unless the codec passes the case, or the case does not apply or is an
/// exception.
#[doc(hidden)]
pub fn prove(
    codec: &Arc<dyn MultiFdMethods>,
    (module, name): (&str, &str),
    exceptions: &[(&str, &str)],
) {
    for (except, reason) in exceptions {
        let (of, case) = except.split_once("::").expect("an exception is called group::case");
        let is_case = cases().iter().any(|it| it.group().module() == of && it.name() == case);
        assert!(is_case, "no case is called {except}");
        if (of, case) == (module, name) {
            eprintln!("{name}: left out: {reason}");
            return;
        }
    }
    let case = cases()
        .iter()
        .find(|case| case.group().module() == module && case.name() == name)
        .expect("the tests are made from the list of cases");
    let allowed = std::env::var_os(ALLOW_UNAVAILABLE).is_some_and(|value| value == "1");
    let outcome = if allowed {
        case.run(codec).outcome().clone()
    } else {
        case.require_and_run(codec).unwrap_or_else(|unavailable| {
            panic!("{unavailable} ({ALLOW_UNAVAILABLE}=1 lets the tests pass without it)")
        })
    };
    match outcome {
        Outcome::Passed => {}
        Outcome::NotApplicable(reason) => eprintln!("{name}: does not apply: {reason}"),
        Outcome::Failed(message) => panic!("{}, {}: {message}", codec.name(), case.group()),
    }
}
