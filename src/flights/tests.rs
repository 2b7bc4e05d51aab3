//! Flights of threads, which sleep parked: one computation a key, and no waiter hangs, whatever a leader does.

use super::{
    AtomicBool, Flights, Handle, Infallible, Landing, LockedFlight, Match, Missed, Ordering, Query, Seat, Signal,
    Token, Turn,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a test waits for a thread before it says that the thread hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a computation ended with: a value, or an error.
type Outcome = Result<u32, &'static str>;

impl Landing for Outcome {
    fn hold(&self, _: Token<'_>) -> Self {
        *self
    }
}

/// A parked thread, and whether it was woken: a thread may also wake for no reason.
#[derive(Debug)]
struct Parked {
    thread: Thread,
    is_woken: Arc<AtomicBool>,
}

impl Parked {
    fn new() -> (Self, Arc<AtomicBool>) {
        let is_woken = Arc::new(AtomicBool::new(false));
        (Self { thread: thread::current(), is_woken: is_woken.clone() }, is_woken)
    }
}

impl Signal for Parked {
    fn wake(signals: impl Iterator<Item = Self>, _: Token<'_>) {
        for signal in signals {
            signal.is_woken.store(true, Ordering::Release);
            signal.thread.unpark();
        }
    }
}

fn sleep(is_woken: &AtomicBool) {
    while !is_woken.load(Ordering::Acquire) {
        thread::park_timeout(PATIENCE);
    }
}

#[derive(Debug)]
struct Threads(Arc<LockedFlight<Outcome, Parked>>);

impl Handle for Threads {
    type Landing = Outcome;
    type Signal = Parked;
    type Home = ();

    fn flight(&self) -> &LockedFlight<Outcome, Parked> {
        &self.0
    }

    fn hold(&self, _: Token<'_>) -> Self {
        Self(self.0.clone())
    }

    fn attached(body: impl FnOnce(Token<'_>)) {
        body(Token::default());
    }
}

/// All keys have one of two hashes.
struct Number(u32);

impl Query<u32> for Number {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        u64::from(self.0 % 2)
    }

    fn compare(&self, _: Token<'_>, stored: &u32) -> Match {
        if *stored == self.0 { Match::Equal } else { Match::Different }
    }

    fn hold(&self, _: Token<'_>, stored: &u32) -> u32 {
        *stored
    }

    fn is_same(&self, one: &u32, other: &u32) -> bool {
        one == other
    }

    fn ask(&self, _: Token<'_>, _: &u32) -> Result<bool, Infallible> {
        unreachable!("numbers are never in doubt")
    }
}

/// What a caller does if it is the one who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Return(u32),
    Raise,
    /// Goes away without an outcome, as a cancelled call does.
    Leave,
    /// The same by a panic, which unwinds through the seat.
    Panic,
}

/// A function with single flight and a cache of what it returned.
#[derive(Default)]
struct Function {
    flights: Flights<u32, Threads>,
    stored: Mutex<BTreeMap<u32, u32>>,
    /// How many computations of each key run, and how many ever began.
    running: [AtomicUsize; KEYS as usize],
    begun: [AtomicUsize; KEYS as usize],
}

const KEYS: u32 = 3;

impl Function {
    /// A call from this thread. None if the caller led and left.
    fn call(&self, key: u32, act: Act) -> Option<Outcome> {
        let token = Token::default();
        let query = Number(key);
        loop {
            if let Some(&value) = self.stored.lock().expect("no panic").get(&key) {
                return Some(Ok(value));
            }
            let (flight, ticket) = LockedFlight::begin();
            let flight = Threads(Arc::new(flight));
            let Ok(found) = self.flights.find_or_add(token, &query, key, &(), &flight);
            let Some(found) = found else {
                return self.lead(Seat::new(&self.flights, query.hash(), flight, ticket), key, act);
            };
            let (signal, mut is_woken) = Parked::new();
            let ticket = match found.flight().join(token, signal) {
                Ok(ticket) => ticket,
                Err(Missed::Landed(outcome)) => return Some(outcome),
                Err(Missed::Deserted) => {
                    // Whoever was the last to leave may not have hidden it yet.
                    self.flights.remove(token, query.hash(), &found);
                    continue;
                }
            };
            let seat = Seat::new(&self.flights, query.hash(), found, ticket);
            loop {
                sleep(&is_woken);
                match seat.turn(token) {
                    Turn::Take(outcome) => return Some(outcome),
                    Turn::Lead => return self.lead(seat, key, act),
                    Turn::Wait => {
                        let (signal, next) = Parked::new();
                        if seat.wait_again(token, signal) {
                            is_woken = next;
                        }
                    }
                }
            }
        }
    }

    fn lead(&self, seat: Seat<&Flights<u32, Threads>, Threads>, key: u32, act: Act) -> Option<Outcome> {
        if let Some(&value) = self.stored.lock().expect("no panic").get(&key) {
            seat.land(Token::default(), Ok(value));
            return Some(Ok(value));
        }
        let running = &self.running[key as usize];
        self.begun[key as usize].fetch_add(1, Ordering::Relaxed);
        assert_eq!(running.fetch_add(1, Ordering::AcqRel), 0, "two compute {key} at once");
        thread::yield_now();
        running.fetch_sub(1, Ordering::AcqRel);
        let outcome = match act {
            Act::Return(value) => {
                if !seat.flight().flight().is_stale() {
                    self.stored.lock().expect("no panic").insert(key, value);
                }
                Ok(value)
            }
            Act::Raise => Err("raised"),
            Act::Leave => return None,
            Act::Panic => std::panic::resume_unwind(Box::new(())),
        };
        seat.land(Token::default(), outcome);
        Some(outcome)
    }
}

/// Runs the calls, a thread each, and returns what became of each: `None` for a caller that left.
fn run(calls: &[(u32, Act)]) -> (Arc<Function>, Vec<Option<Outcome>>) {
    let function = Arc::new(Function::default());
    let (sender, receiver) = mpsc::channel();
    for (number, &(key, act)) in calls.iter().enumerate() {
        let (function, sender) = (function.clone(), sender.clone());
        thread::spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function.call(key, act)));
            // A panic without a text is the one of `Act::Panic`.
            let outcome = outcome.or_else(|panic| if panic.is::<()>() { Ok(None) } else { Err(panic) });
            sender.send((number, outcome)).expect("the test waits");
        });
    }
    let mut outcomes = vec![None; calls.len()];
    for _ in calls {
        let (number, outcome) = receiver.recv_timeout(PATIENCE).expect("no caller hangs");
        outcomes[number] = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    (function, outcomes)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![4 => (0..100_u32).prop_map(Act::Return), 2 => Just(Act::Raise), 2 => Just(Act::Leave), 1 => Just(Act::Panic)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_caller_hangs_whatever_the_others_do(calls in prop::collection::vec((0..KEYS, act()), 1..16)) {
        let (function, outcomes) = run(&calls);
        for (&(key, act), outcome) in calls.iter().zip(outcomes) {
            let of_key = |act: Act| calls.contains(&(key, act));
            match outcome {
                None => prop_assert!(matches!(act, Act::Leave | Act::Panic), "{act:?} got nothing"),
                Some(Ok(value)) => prop_assert!(of_key(Act::Return(value)), "{value} is of another key"),
                Some(Err(_)) => prop_assert!(of_key(Act::Raise), "nobody has raised"),
            }
        }
        for key in 0..KEYS {
            let Ok(left) = function.flights.find(Token::default(), &Number(key), &());
            prop_assert!(left.is_none(), "a flight of {key} is left");
            // All who return are answered by the first of them.
            let returns = calls.iter().filter(|&&(of, act)| of == key && matches!(act, Act::Return(_))).count();
            let others = calls.iter().filter(|&&(of, _)| of == key).count() - returns;
            let begun = function.begun[key as usize].load(Ordering::Relaxed);
            prop_assert!(begun <= others + usize::from(returns > 0), "{begun} computations");
        }
    }
}

/// A function that a leader computes, and callers that are known to wait for it.
fn waiting(function: &Arc<Function>, callers: usize, act: Act) -> mpsc::Receiver<Option<Outcome>> {
    let Ok(Some(flight)) = function.flights.find(Token::default(), &Number(0), &()) else { panic!("nobody leads") };
    let (sender, receiver) = mpsc::channel();
    for _ in 0..callers {
        let (function, sender) = (function.clone(), sender.clone());
        thread::spawn(move || sender.send(function.call(0, act)));
    }
    while flight.0.flight.with(Token::default(), |flight| flight.signals().count()) < callers {
        thread::yield_now();
    }
    receiver
}

fn leading(function: &Function) -> Seat<&Flights<u32, Threads>, Threads> {
    let (flight, ticket) = LockedFlight::begin();
    let flight = Threads(Arc::new(flight));
    let Ok(found) = function.flights.find_or_add(Token::default(), &Number(0), 0, &(), &flight);
    assert!(found.is_none());
    Seat::new(&function.flights, Number(0).hash(), flight, ticket)
}

#[test]
fn all_who_wait_take_what_the_leader_lands() {
    let function = Arc::<Function>::default();
    let seat = leading(&function);
    let outcomes = waiting(&function, 8, Act::Return(2));
    seat.land(Token::default(), Ok(1));
    for _ in 0..8 {
        assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(Some(Ok(1))));
    }
    assert_eq!(function.begun[0].load(Ordering::Relaxed), 0, "nobody else computes");
}

#[test]
fn one_of_those_who_wait_leads_when_the_leader_is_dropped() {
    let function = Arc::<Function>::default();
    let seat = leading(&function);
    let outcomes = waiting(&function, 8, Act::Return(2));
    drop(seat);
    for _ in 0..8 {
        assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(Some(Ok(2))));
    }
    assert_eq!(function.begun[0].load(Ordering::Relaxed), 1);
}

#[test]
fn a_flight_that_all_have_left_is_found_by_nobody() {
    let function = Function::default();
    drop(leading(&function));
    let Ok(found) = function.flights.find(Token::default(), &Number(0), &());
    assert!(found.is_none());
}

#[test]
fn a_forgotten_flight_lands_for_those_who_wait_and_its_value_is_not_stored() {
    let function = Arc::<Function>::default();
    let seat = leading(&function);
    let outcomes = waiting(&function, 2, Act::Raise);
    let Ok(()) = function.flights.forget(Token::default(), &Number(0));
    assert!(seat.flight().flight().is_stale());
    let Ok(found) = function.flights.find(Token::default(), &Number(0), &());
    assert!(found.is_none(), "nobody joins it any more");
    assert_eq!(function.lead(seat, 0, Act::Return(1)), Some(Ok(1)));
    for _ in 0..2 {
        assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(Some(Ok(1))));
    }
    assert!(function.stored.lock().expect("no panic").is_empty());
}
