//! Gates that hold other gates forward everything to them. Each omission was once a way to lose a
//! permit, a hint or a wake-up.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
    task::Context,
    time::Duration,
};

use super::{SECOND, one_a_second};
use crate::{
    ConfigError, Outcome, Rejected,
    algorithm::Overflow,
    ambient::clock::Now,
    gate::{
        Access, Admission, Admit, CallEvent, Chain, ClosedWatch, Closes, Completion, Controlled,
        Demand, Gate, Inquiry, Keyable, Keyed, KeyedParts, LimitedCall, MissingKey, Quoted, Read,
        Shadow, TicketPoll, Unsent, Visit, closing,
    },
    keyed::{
        KeyFn, Missing,
        partitions::{Evict, Factory},
    },
    observe::Tally,
    protocol::{Hint, Quota},
};

/// A gate that records each method that is called on it.
#[derive(Debug, Clone)]
struct Logs {
    name: &'static str,
    told: &'static Told,
}

#[derive(Debug, Default)]
struct Told(Mutex<BTreeSet<(&'static str, &'static str)>>);

impl Told {
    fn leaked() -> &'static Self {
        Box::leak(Box::default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(&'static str, &'static str)>> {
        self.0.lock().unwrap()
    }

    /// Returns the methods recorded for this gate.
    fn of(&self, name: &str) -> Vec<&'static str> {
        let told = self.lock();
        let told = told.iter().filter(|(gate, _)| *gate == name);
        told.map(|(_, what)| *what).collect()
    }
}

impl Logs {
    fn tell(&self, what: &'static str) {
        self.told.lock().insert((self.name, what));
    }
}

impl Gate for Logs {
    type Pass = u8;
    type Ticket = u8;
    type Asked = ();
    const CLOSES: bool = true;

    fn give_back(&self, _: u8, why: Unsent, _: &Now) {
        self.tell(match why {
            Unsent::Abandoned => "give_back",
            Unsent::NotReady => "give_back not ready",
        });
    }

    fn end(&self, _: u8, _: Completion, _: &Now) {
        self.tell("end");
    }

    fn leave(&self, _: u8, _: &Now) {
        self.tell("leave");
    }

    fn owes(&self, pass: &u8) -> bool {
        *pass > 0
    }

    fn renew(&self, _: &mut u8, _: &Now) -> Result<(), Box<Rejected>> {
        self.tell("renew");
        Ok(())
    }

    fn event(&self, _: &mut u8, event: CallEvent, _: &Now) {
        self.tell(match event {
            CallEvent::Sent => "sent",
            CallEvent::Head => "head",
            CallEvent::Hint(_) => "hint",
            CallEvent::Used(_) => "used",
            CallEvent::Upgraded(_) => "upgraded",
        });
    }

    fn told(&self, _: &u8, _: &Hint, _: &Now) {
        self.tell("told");
    }

    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        visit(self)
    }
}

impl Closes for Logs {
    fn access(&self, _: &Now) -> Access {
        self.tell("access");
        Access::Open
    }

    fn changed(&self) -> ClosedWatch {
        self.tell("changed");
        Box::pin(std::future::pending())
    }

    fn until_change(&self, _: &Now) -> Option<Duration> {
        self.tell("until_change");
        None
    }

    fn expire(&self, _: &Now) {
        self.tell("expire");
    }
}

impl Quoted for Logs {
    fn quotas(&self, _: &Now, _: &mut Vec<Quota>) {
        self.tell("quotas");
    }

    fn wait(&self, _: &Now) -> Option<Duration> {
        self.tell("wait");
        Some(Duration::ZERO)
    }
}

/// Admits calls from 1 on, and queues call 0.
impl Admit<u32> for Logs {
    fn admit(&self, inquiry: Inquiry<'_, u32, ()>, _: &Now) -> Admission<u8, u8> {
        self.tell("admit");
        if *inquiry.request == 0 {
            Admission::Queued(1)
        } else {
            Admission::Granted(1)
        }
    }

    fn poll_ticket(
        &self,
        _: &mut u8,
        _: Inquiry<'_, u32, ()>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<u8> {
        self.tell("poll_ticket");
        TicketPoll::Granted(1)
    }

    fn limits(&self, call: LimitedCall<'_, u32, u8, ()>, visit: &mut impl FnMut(&dyn Quoted)) {
        self.tell(match call {
            LimitedCall::Sent(_) => "limits of a sent call",
            LimitedCall::Unsent(_, Visit::ForQuotas) => "limits of a rejected call",
            LimitedCall::Unsent(_, Visit::ForWait) => "limits of a call to be hinted",
        });
        visit(self);
    }
}

impl Read<u32> for Logs {
    fn read(&self, _: &mut u8, _: &u32, _: &Now) {
        self.tell("read");
    }
}

impl Evict for Logs {
    fn is_fresh(&self) -> bool {
        false
    }
}

impl MissingKey for Logs {
    fn missing_key(&self) -> Box<Rejected> {
        unreachable!("every call has a key")
    }

    fn overflow(&self) -> Box<Rejected> {
        unreachable!("there is room for all keys")
    }
}

impl<K> Factory<K, Self> for Logs {
    fn make(&self, _: &K) -> Result<Self, ConfigError> {
        Ok(Self {
            name: "own",
            ..self.clone()
        })
    }
}

impl Controlled for Logs {
    type Handle = Self;

    fn control(&self) -> Self {
        self.clone()
    }
}

impl Keyable for Logs {
    type Factory<K> = Self;

    fn watch(&self) -> Self {
        self.clone()
    }
}

/// A call about which nothing was asked yet.
struct Asking<A> {
    call: u32,
    demand: Demand,
    asked: A,
}

impl<A: Default> Asking<A> {
    fn about(call: u32) -> Self {
        Self {
            call,
            demand: Demand::default(),
            asked: A::default(),
        }
    }

    fn inquiry(&mut self) -> Inquiry<'_, u32, A> {
        Inquiry {
            request: &self.call,
            demand: &self.demand,
            asked: &mut self.asked,
        }
    }
}

fn granted<G: Admit<u32>>(gate: &G, now: &Now) -> G::Pass {
    match gate.admit(Asking::about(1).inquiry(), now) {
        Admission::Granted(mut pass) => {
            gate.renew(&mut pass, now).unwrap();
            pass
        }
        _ => panic!("call 1 is admitted"),
    }
}

/// Calls every method of a gate.
fn tell<G: Admit<u32> + Read<u32>>(gate: &G) {
    let now = Now::unread();
    gate.give_back(granted(gate, &now), Unsent::Abandoned, &now);
    gate.give_back(granted(gate, &now), Unsent::NotReady, &now);
    let mut pass = granted(gate, &now);
    gate.event(&mut pass, CallEvent::Sent, &now);
    assert!(gate.owes(&pass));
    gate.read(&mut pass, &1, &now);
    gate.event(&mut pass, CallEvent::Head, &now);
    gate.event(&mut pass, CallEvent::Hint(SECOND), &now);
    gate.event(&mut pass, CallEvent::Used(2), &now);
    gate.told(&pass, &Hint::new(), &now);
    gate.limits(LimitedCall::Sent(&pass), &mut |limit| {
        limit.quotas(&now, &mut Vec::new());
    });
    gate.event(&mut pass, CallEvent::Upgraded(Outcome::Success), &now);
    gate.end(pass, Completion::Dropped, &now);

    for why in [Visit::ForQuotas, Visit::ForWait] {
        let mut asking = Asking::about(1);
        let call = LimitedCall::Unsent(asking.inquiry(), why);
        gate.limits(call, &mut |limit| {
            limit.wait(&now);
        });
    }
    closing::access(gate, &now);
    closing::changed(gate);
    closing::until_change(gate, &now);
    closing::expire(gate, &now);

    let cx = &mut Context::from_waker(std::task::Waker::noop());
    for leaves in [true, false] {
        let mut asking = Asking::about(0);
        let Admission::Queued(mut ticket) = gate.admit(asking.inquiry(), &now) else {
            continue;
        };
        if leaves {
            gate.leave(ticket, &now);
        } else {
            // In a pair, the second gate queues the call as well.
            while let TicketPoll::Queued = gate.poll_ticket(&mut ticket, asking.inquiry(), cx, &now)
            {
            }
        }
    }
}

/// Returns every method.
fn everything() -> Vec<&'static str> {
    let told = Told::leaked();
    tell(&Logs { name: "", told });
    told.of("")
}

fn without(left_out: &[&str]) -> Vec<&'static str> {
    let told = everything().into_iter();
    told.filter(|what| !left_out.contains(what)).collect()
}

#[test]
fn there_is_a_lot_to_tell() {
    assert_eq!(everything().len(), 23);
}

#[test]
fn both_of_a_pair_are_told_everything() {
    let told = Told::leaked();
    let [first, second] = ["first", "second"].map(|name| Logs { name, told });
    tell(&Chain::new(first, second));
    // A call that waits for the first gate has not joined the second, and leaves only the first.
    assert_eq!(told.of("first"), everything());
    assert_eq!(told.of("second"), without(&["leave"]));

    // A call that waits for the second gate has been admitted by the first.
    let told = Told::leaked();
    let (first, second) = (
        one_a_second(),
        Logs {
            name: "second",
            told,
        },
    );
    let pair = Chain::new(first, second);
    let now = Now::unread();
    let Admission::Queued(ticket) = pair.admit(Asking::about(0).inquiry(), &now) else {
        panic!("call 0 waits");
    };
    pair.leave(ticket, &now);
    assert!(told.of("second").contains(&"leave"));
    // The pair has given back what the first gate granted.
    assert!(matches!(
        pair.first.admit(Asking::about(1).inquiry(), &Now::unread()),
        Admission::Granted(_)
    ));
}

#[test]
fn a_gate_that_is_there_is_told_everything() {
    let told = Told::leaked();
    tell(&Some(Logs { name: "", told }));
    assert_eq!(told.of(""), everything());
}

#[test]
fn a_keys_own_gate_is_told_what_is_about_its_calls() {
    let told = Told::leaked();
    let logs = |name| Logs { name, told };
    let otherwise = (Overflow::Shared, Missing::Share);
    let tally = Arc::new(Tally::new("logs", None));
    let parts = KeyedParts::new(
        10,
        (logs("shared"), tally),
        logs("factory"),
        otherwise,
        true,
    )
    .advertises(true);
    tell(&Keyed::new(KeyFn::new(|_: &u32| Some(7)), parts));
    // Readiness is polled before there is a key.
    let about_all = ["access", "changed", "until_change", "expire"];
    assert_eq!(told.of("own"), without(&about_all));
    assert_eq!(told.of("shared"), [""; 0]);
}

#[test]
fn a_gate_on_trial_only_sees_calls() {
    let told = Told::leaked();
    tell(&Shadow::new(Logs { name: "", told }, "forwarding"));
    let asked = [
        "access",
        "changed",
        "until_change",
        "expire",
        "wait",
        "quotas",
        "limits of a sent call",
        "limits of a rejected call",
        "limits of a call to be hinted",
        "poll_ticket",
    ];
    assert_eq!(told.of(""), without(&asked));
}
