//! Every rule about the decorator's arguments, and the plain values that are left when they are parsed.
//!
//! Nothing here knows Python: `py::decorator` turns objects into numbers and strings, the rules are here.

use std::fmt;
use std::time::Duration;

/// Which entry a full cache evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Least recently used.
    Lru = 0,
    /// Most recently used.
    Mru = 1,
    /// Oldest insertion.
    Fifo = 2,
    /// Least frequently used.
    Lfu = 3,
}

/// Where the entries live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The heap of this process.
    Memory = 0,
    /// A memory-mapped file, one for all processes.
    Shared = 1,
}

/// A closed set of named values, as the user spells them: a member of an `IntEnum`, its number, or its name.
pub trait Choice: Copy + Sized + 'static {
    /// The argument's name.
    const ARGUMENT: &'static str;
    /// The enum's name in Python.
    const TYPE: &'static str;
    /// Every value with its name, the value's number being its place here.
    const ALL: &'static [(&'static str, Self)];

    /// The value numbered `number`.
    fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|index| Self::ALL.get(index)).map(|&(_, value)| value)
    }

    /// The value called `name`, in any case.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// The error for anything else.
    fn refuse(got: String) -> OptionsError {
        let accepted: Vec<_> = Self::ALL
            .iter()
            .enumerate()
            .map(|(number, (name, _))| format!("{}.{name} ({number} or {:?})", Self::TYPE, name.to_ascii_lowercase()))
            .collect();
        OptionsError::Choice { argument: Self::ARGUMENT, accepted: accepted.join(", "), got }
    }
}

impl Choice for Strategy {
    const ARGUMENT: &'static str = "strategy";
    const TYPE: &'static str = "Strategy";
    const ALL: &'static [(&'static str, Self)] =
        &[("LRU", Self::Lru), ("MRU", Self::Mru), ("FIFO", Self::Fifo), ("LFU", Self::Lfu)];
}

impl Choice for Backend {
    const ARGUMENT: &'static str = "backend";
    const TYPE: &'static str = "Backend";
    const ALL: &'static [(&'static str, Self)] = &[("MEMORY", Self::Memory), ("SHARED", Self::Shared)];
}

/// How long a value stays valid, from 1 ns up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ttl(Duration);

impl Ttl {
    /// A time to live from seconds; `None` when it is infinite.
    pub fn from_seconds(seconds: f64) -> Result<Option<Self>, OptionsError> {
        if seconds.is_nan() || seconds <= 0.0 {
            return Err(OptionsError::Ttl { got: format!("{seconds:?}") });
        }
        // A time that no clock of 64-bit nanoseconds can reach (584 years) never comes.
        let limit = Duration::from_nanos(u64::MAX);
        let ttl = Duration::try_from_secs_f64(seconds).unwrap_or(limit).min(limit);
        Ok((seconds != f64::INFINITY).then_some(Self(ttl.max(Duration::from_nanos(1)))))
    }

    /// The time to live in nanoseconds, at least 1.
    pub fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time to live as the clock keeps it, in seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// The decorator's arguments, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Which entry a full cache evicts.
    pub strategy: Strategy,
    /// The most entries kept; `None` for no bound.
    pub max_size: Option<usize>,
    /// How long a value stays valid; `None` for ever.
    pub ttl: Option<Ttl>,
    /// Where the entries live.
    pub backend: Backend,
    /// The most bytes of a key in shared memory.
    pub max_key_size: u32,
    /// The most bytes of a value in shared memory.
    pub max_value_size: u32,
    /// Whether equal arguments of different types are different keys.
    pub typed: bool,
    /// Whether threads that miss one key wait for one computation; `None` leaves it to the kind of function.
    pub single_flight: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strategy: Strategy::Lru,
            max_size: Some(128),
            ttl: None,
            backend: Backend::Memory,
            max_key_size: 512,
            max_value_size: 4096,
            typed: false,
            single_flight: None,
        }
    }
}

impl Options {
    /// The largest `max_size`: what fits a `Py_ssize_t`.
    pub const LARGEST_SIZE: i64 = i64::MAX;

    /// A `max_size` that is a number.
    pub fn size(number: i64) -> Result<usize, OptionsError> {
        usize::try_from(number).map_err(|_| OptionsError::MaxSize { got: number.to_string() })
    }

    /// A limit in bytes: 1 to 2³¹ − 1.
    pub fn bytes(argument: &'static str, number: i64) -> Result<u32, OptionsError> {
        u32::try_from(number)
            .ok()
            .filter(|bytes| (1..=Self::MOST_BYTES).contains(bytes))
            .ok_or_else(|| OptionsError::Bytes { argument, got: number.to_string() })
    }

    /// The largest limit in bytes.
    pub const MOST_BYTES: u32 = i32::MAX as u32;
}

/// The parts of a shared region's name besides the function itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Stands for the function: not empty.
    pub name: Option<String>,
    /// Tells regions of one name apart.
    pub version: Option<Version>,
}

/// Which of the two decorators made a cache, and so which promise it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `cache`: arguments are matched to the signature.
    Cache,
    /// `lru_cache`: keys are those of `functools.lru_cache`.
    LruCache,
}

/// The arguments of a decorator, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the cache works.
    pub options: Options,
    /// The name of a shared cache.
    pub naming: Naming,
    /// The decorator.
    pub flavour: Flavour,
}

/// The version of a function, as its author counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// Counted.
    Number(i64),
    /// In words.
    Text(String),
}

impl Options {
    /// Refuses what the shared backend cannot do.
    pub fn check_shared(&self) -> Result<usize, OptionsError> {
        self.max_size.ok_or(OptionsError::Unbounded)
    }
}

/// The fault of an argument: the value received, and the accepted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// `max_size` is negative, or larger than any memory.
    MaxSize {
        /// The value received.
        got: String,
    },
    /// `max_size` is `None` for the shared backend.
    Unbounded,
    /// A region of so many entries of that size can't be addressed.
    Unaddressable,
    /// `name` is empty, or no text that another process could be given.
    Name {
        /// The value received.
        got: String,
    },
    /// `version` does not fit.
    Version {
        /// The value received.
        got: String,
    },
    /// `max_key_size` or `max_value_size` is out of range.
    Bytes {
        /// Which of the two.
        argument: &'static str,
        /// The value received.
        got: String,
    },
    /// `ttl` is zero, negative or NaN.
    Ttl {
        /// The value received.
        got: String,
    },
    /// `strategy` or `backend` is none of its values.
    Choice {
        /// Which of the two.
        argument: &'static str,
        /// The values it can have.
        accepted: String,
        /// The value received.
        got: String,
    },
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxSize { got } => {
                write!(f, "max_size must be from 0 to {}, or None for no bound, got {got}", Options::LARGEST_SIZE)
            }
            Self::Unbounded => {
                write!(f, "max_size must be a number for backend=\"shared\", which needs a bound, got None")
            }
            Self::Unaddressable => write!(
                f,
                "max_size entries of max_key_size and max_value_size bytes are more than a shared region can have: make one \
                 of the three smaller"
            ),
            Self::Name { got } => write!(f, "name must have a character, and no lone surrogate, got {got}"),
            Self::Version { got } => write!(
                f,
                "version must be from {} to {}, or a str without lone surrogates, got {got}",
                i64::MIN,
                i64::MAX
            ),
            Self::Bytes { argument, got } => {
                write!(f, "{argument} must be from 1 to {} bytes, got {got}", Options::MOST_BYTES)
            }
            Self::Ttl { got } => write!(f, "ttl must be more than 0 seconds, or None for no expiry, got {got}"),
            Self::Choice { argument, accepted, got } => write!(f, "{argument} must be one of {accepted}, got {got}"),
        }
    }
}

impl std::error::Error for OptionsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_go_by_number_and_by_name_in_any_case() {
        assert_eq!(Strategy::from_number(3), Some(Strategy::Lfu));
        assert_eq!(Strategy::from_number(4), None);
        assert_eq!(Strategy::from_number(-1), None);
        assert_eq!(Strategy::from_name("fIfO"), Some(Strategy::Fifo));
        assert_eq!(Backend::from_name("Memory"), Some(Backend::Memory));
        assert_eq!(Backend::from_name("disk"), None);
        assert_eq!(
            Backend::refuse("'disk'".into()).to_string(),
            "backend must be one of Backend.MEMORY (0 or \"memory\"), Backend.SHARED (1 or \"shared\"), got 'disk'"
        );
    }

    #[test]
    fn a_number_of_a_choice_is_its_place() {
        for (number, &(_, value)) in Strategy::ALL.iter().enumerate() {
            assert_eq!(value as usize, number);
        }
        for (number, &(_, value)) in Backend::ALL.iter().enumerate() {
            assert_eq!(value as usize, number);
        }
    }

    #[test]
    fn a_ttl_is_a_positive_time() {
        let nanoseconds = |seconds| Ttl::from_seconds(seconds).map(|ttl| ttl.map(Ttl::nanoseconds));
        assert_eq!(nanoseconds(1.5), Ok(Some(1_500_000_000)));
        assert_eq!(nanoseconds(1e-300), Ok(Some(1)));
        assert_eq!(nanoseconds(1e300), Ok(Some(u64::MAX)));
        assert_eq!(nanoseconds(f64::INFINITY), Ok(None));
        for bad in [0.0, -0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(nanoseconds(bad).is_err(), "{bad}");
        }
        assert_eq!(
            nanoseconds(-1.0).map_err(|error| error.to_string()),
            Err("ttl must be more than 0 seconds, or None for no expiry, got -1.0".into())
        );
    }

    #[test]
    fn sizes_have_their_ranges() {
        assert_eq!(Options::size(0), Ok(0));
        assert_eq!(
            Options::size(-1).map_err(|error| error.to_string()),
            Err("max_size must be from 0 to 9223372036854775807, or None for no bound, got -1".into())
        );
        assert_eq!(Options::bytes("max_key_size", 1), Ok(1));
        assert_eq!(Options::bytes("max_key_size", (1 << 31) - 1), Ok(i32::MAX as u32));
        for bad in [0, -1, 1 << 31, 1 << 32, i64::MAX] {
            assert!(Options::bytes("max_key_size", bad).is_err(), "{bad}");
        }
    }
}
