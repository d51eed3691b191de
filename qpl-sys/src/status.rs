//! What the library answers.

use std::fmt;

/// A `qpl_status`: a number and not an enum, since any may come from the library.
///
/// [`Display`](fmt::Display) has number, name and meaning, as far as they are known.
#[allow(clippy::exhaustive_structs, reason = "it is the C enum's number")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($constant:ident = $value:literal, $name:literal, $meaning:literal;)*) => {
        impl Status {
            $(
                #[doc = concat!("`", $name, "`: ", $meaning, ".")]
                pub const $constant: Self = Self($value);
            )*

            /// The statuses that have a name here, by number.
            pub const NAMED: &[Self] = &[$(Self::$constant),*];

            /// The status' name in the C headers.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($name),)*
                    _ => None,
                }
            }

            /// What the status means, in words.
            pub const fn meaning(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($meaning),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    OK = 0, "QPL_STS_OK", "done";
    BEING_PROCESSED = 1, "QPL_STS_BEING_PROCESSED", "the job is still running";
    MORE_OUTPUT_NEEDED = 2, "QPL_STS_MORE_OUTPUT_NEEDED", "the output is full and input is left";
    MORE_INPUT_NEEDED = 3, "QPL_STS_MORE_INPUT_NEEDED", "the input ends in the middle";
    JOB_NOT_CONTINUABLE = 4, "QPL_STS_JOB_NOT_CONTINUABLE_ERR", "a job behind a last one is not a first one";
    QUEUES_ARE_BUSY = 5, "QPL_STS_QUEUES_ARE_BUSY_ERR", "the device's work queues are full";
    LIBRARY_INTERNAL = 6, "QPL_STS_LIBRARY_INTERNAL_ERR", "the library failed in itself";
    JOB_NOT_SUBMITTED = 7, "QPL_STS_JOB_NOT_SUBMITTED", "a job is waited for that was not submitted";
    NOT_SUPPORTED_BY_WQ = 8, "QPL_STS_NOT_SUPPORTED_BY_WQ", "the device's work queues are not set up for the operation";
    NULL_PTR = 50, "QPL_STS_NULL_PTR_ERR", "a pointer is null";
    OPERATION = 51, "QPL_STS_OPERATION_ERR", "there is no such operation";
    NOT_SUPPORTED_MODE = 52, "QPL_STS_NOT_SUPPORTED_MODE_ERR", "the mode is not supported";
    BAD_JOB_STRUCT = 53, "QPL_STS_BAD_JOB_STRUCT_ERR", "the job does not suit the operation";
    PATH = 54, "QPL_STS_PATH_ERR", "there is no such path";
    INVALID_PARAM = 55, "QPL_STS_INVALID_PARAM_ERR", "fields of the job contradict each other";
    FLAG_CONFLICT = 56, "QPL_STS_FLAG_CONFLICT_ERR", "flags of the job contradict each other";
    SIZE = 57, "QPL_STS_SIZE_ERR", "a size is wrong";
    BUFFER_OVERLAP = 59, "QPL_STS_BUFFER_OVERLAP_ERR", "input and output overlap";
    UNSUPPORTED_COMPRESSION_LEVEL = 87, "QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL", "the path does not have the level";
    NO_MEM = 101, "QPL_STS_NO_MEM_ERR", "there is not enough memory";
    BIG_HEADER = 201, "QPL_STS_BIG_HEADER_ERR", "the input ends in a block's header";
    UNDEF_CL_CODE = 202, "QPL_STS_UNDEF_CL_CODE_ERR", "a block's header has a code that is not defined";
    FIRST_LL_CODE_16 = 203, "QPL_STS_FIRST_LL_CODE_16_ERR", "the literal codes begin with a repetition";
    FIRST_D_CODE_16 = 204, "QPL_STS_FIRST_D_CODE_16_ERR", "the distance codes begin with a repetition";
    NO_LL_CODE = 205, "QPL_STS_NO_LL_CODE_ERR", "there are no literal codes";
    WRONG_NUM_LL_CODES = 206, "QPL_STS_WRONG_NUM_LL_CODES_ERR", "the number of literal codes is wrong";
    WRONG_NUM_DIST_CODES = 207, "QPL_STS_WRONG_NUM_DIST_CODES_ERR", "the number of distance codes is wrong";
    BAD_CL_CODE_LEN = 208, "QPL_STS_BAD_CL_CODE_LEN_ERR", "a code in a block's header is too long";
    BAD_LL_CODE_LEN = 209, "QPL_STS_BAD_LL_CODE_LEN_ERR", "a literal code is too long";
    BAD_DIST_CODE_LEN = 210, "QPL_STS_BAD_DIST_CODE_LEN_ERR", "a distance code is too long";
    BAD_LL_CODE = 211, "QPL_STS_BAD_LL_CODE_ERR", "a literal code is not defined";
    BAD_D_CODE = 212, "QPL_STS_BAD_D_CODE_ERR", "a distance code is not defined";
    INVALID_BLOCK_TYPE = 213, "QPL_STS_INVALID_BLOCK_TYPE", "there is no such type of block";
    INVALID_STORED_LEN = 214, "QPL_STS_INVALID_STORED_LEN_ERR", "a stored block's two lengths disagree";
    BAD_EOF = 215, "QPL_STS_BAD_EOF_ERR", "the input does not end at the end of a final block";
    BAD_LEN = 216, "QPL_STS_BAD_LEN_ERR", "a match's length is out of range";
    BAD_DIST = 217, "QPL_STS_BAD_DIST_ERR", "a distance is 0 or reaches past the 4 KiB window";
    REF_BEFORE_START = 218, "QPL_STS_REF_BEFORE_START_ERR", "a distance reaches to before the start";
    TIMEOUT = 219, "QPL_STS_TIMEOUT_ERR", "there is input, but no progress";
    OUTPUT_OVERFLOW = 221, "QPL_STS_OUTPUT_OVERFLOW_ERR", "there is more output than the type can count";
    SRC_1_TOO_SMALL = 223, "QPL_STS_SRC1_TOO_SMALL_ERR", "the input is shorter than it should be";
    DST_IS_SHORT = 225, "QPL_STS_DST_IS_SHORT_ERR", "the output has too little room";
    VERIFY = 229, "QPL_STS_INTL_VERIFY_ERR", "what was compressed does not decompress to the input";
    TOO_MANY_LL_CODES = 235, "QPL_STS_TOO_MANY_LL_CODES_ERR", "a block's header has more than 286 literal codes";
    TOO_MANY_D_CODES = 236, "QPL_STS_TOO_MANY_D_CODES_ERR", "a block's header has more than 30 distance codes";
    PAGE_FAULT = 303, "QPL_STS_INTL_PAGE_FAULT", "the device met a page fault while reading";
    TRANSFER_SIZE_INVALID = 319, "QPL_STS_TRANSFER_SIZE_INVALID", "no work queue takes that many bytes at once";
    HARDWARE_TIMEOUT = 334, "QPL_STS_INTL_HARDWARE_TIMEOUT", "the device took too long";
    WRITE_PAGE_FAULT = 431, "QPL_STS_INTL_W_PAGE_FAULT", "the device met a page fault while writing";
    INIT_HW_NOT_SUPPORTED = 500, "QPL_STS_INIT_HW_NOT_SUPPORTED", "the library has no hardware path here";
    INIT_LIBACCEL_NOT_FOUND = 501, "QPL_STS_INIT_LIBACCEL_NOT_FOUND", "libaccel-config.so.1 cannot be opened, or is too old";
    INIT_LIBACCEL = 502, "QPL_STS_INIT_LIBACCEL_ERROR", "libaccel-config failed";
    INIT_WORK_QUEUES_NOT_AVAILABLE = 503, "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE", "no IAA work queue is enabled, or none may be used by this user";
}

impl Status {
    /// Whether an engine found the data wrong, or could not process them: 200 to 299, but for
    /// [`TIMEOUT`](Self::TIMEOUT). The next job may well succeed.
    pub const fn is_operation_error(self) -> bool {
        matches!(self.0, 200..300) && self.0 != Self::TIMEOUT.0
    }

    /// Whether the device or its queues are not there, not set up, or lost: 500 to 599, and
    /// [`NOT_SUPPORTED_BY_WQ`](Self::NOT_SUPPORTED_BY_WQ). No job will succeed.
    pub const fn is_set_up_error(self) -> bool {
        matches!(self.0, 500..600) || self.0 == Self::NOT_SUPPORTED_BY_WQ.0
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.meaning()) {
            (Some(name), Some(meaning)) => write!(f, "{meaning} ({name}, {})", self.0),
            _ => write!(f, "status {}, which has no name here", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_can_be_shown() {
        assert_eq!(
            Status::BAD_DIST.to_string(),
            "a distance is 0 or reaches past the 4 KiB window (QPL_STS_BAD_DIST_ERR, 217)"
        );
        assert_eq!(Status(9999).to_string(), "status 9999, which has no name here");
        assert_eq!(format!("{:?}", Status::OK), "Status(done (QPL_STS_OK, 0))");
    }

    #[test]
    fn names_are_listed_once_and_in_order() {
        assert!(Status::NAMED.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn operation_errors_are_those_of_the_engine() {
        assert!(Status::BAD_DIST.is_operation_error() && Status(299).is_operation_error());
        let others = [Status(199), Status::PAGE_FAULT, Status::TIMEOUT];
        assert!(!others.into_iter().any(Status::is_operation_error));
    }

    #[test]
    fn set_up_errors_are_those_that_no_job_gets_past() {
        let set_up = [Status::NOT_SUPPORTED_BY_WQ, Status::INIT_HW_NOT_SUPPORTED, Status(599)];
        assert!(set_up.into_iter().all(Status::is_set_up_error));
        let other = [Status::OK, Status::QUEUES_ARE_BUSY, Status::PAGE_FAULT, Status(600)];
        assert!(!other.into_iter().any(Status::is_set_up_error));
    }
}
