//! A gate for each key.

use std::{fmt, hash::Hash, ops::ControlFlow, sync::Arc, task::Context, time::Duration};

use crate::{
    Rejected,
    algorithm::Overflow,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Closes, Completion, Controlled, Gate, Inquiry, LimitedCall,
        Quoted, Read, TicketPoll, Unsent, Visit,
        combine::{
            keyed_handle::KeyedHandle,
            keyed_parts::{Keyable, KeyedParts},
        },
    },
    keyed::{FindKey, HasKey, Missing, partitions::Partition},
    protocol::{Hint, Quota},
};

/// A gate per key, where a closure `F` finds the key in requests. A gate of a key rejects only that
/// key's calls, and `poll_ready` comes before there is a request. So `poll_ready` is that of the
/// inner service, unless all requests share one gate.
pub struct Keyed<F: HasKey, G: Keyable> {
    key: F,
    parts: Arc<KeyedParts<F::Key, G>>,
}

/// The partition that admitted a call, or `None` for the shared gate.
type KeyPlace<K, G> = Option<Arc<Partition<K, G>>>;

/// An admission by the gate of a key.
pub struct KeyedPass<K, G: Gate>(Option<(KeyPlace<K, G>, G::Pass)>);

/// A place in the queue of a key.
pub struct KeyedTicket<K, G: Gate>(KeyPlace<K, G>, G::Ticket);

/// The key of a request, once it was looked for, and the answers of the gate's closures.
pub struct KeyedAsked<K, G: Gate> {
    key: Option<Option<K>>,
    gate: G::Asked,
}

impl<F: HasKey, G: Keyable> Keyed<F, G> {
    pub(crate) fn new(key: F, parts: KeyedParts<F::Key, G>) -> Self {
        Self {
            key,
            parts: Arc::new(parts),
        }
    }

    pub(crate) fn parts(&self) -> &Arc<KeyedParts<F::Key, G>> {
        &self.parts
    }

    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> KeyedHandle<F::Key, G> {
        self.control()
    }

    /// Returns the gate of all requests, if they share one.
    fn only(&self) -> Option<&G> {
        self.parts.all_share.then_some(&self.parts.shared)
    }

    fn of<'a>(&'a self, place: &'a KeyPlace<F::Key, G>) -> &'a G {
        place
            .as_ref()
            .map_or(&self.parts.shared, |partition| partition.gate())
    }
}

impl<F: HasKey, G: Keyable> Controlled for Keyed<F, G> {
    type Handle = KeyedHandle<F::Key, G>;

    fn control(&self) -> KeyedHandle<F::Key, G> {
        KeyedHandle {
            parts: self.parts.clone(),
        }
    }
}

// Nothing here requires keys to be `'static`: when the compiler checks whether a task can be
// spawned, it cannot see that of a reference. Layers are built only with keys that are `'static`.
impl<F: HasKey<Key: Send + Sync>, G: Keyable> Gate for Keyed<F, G> {
    type Pass = KeyedPass<F::Key, G>;
    type Ticket = KeyedTicket<F::Key, G>;
    type Asked = KeyedAsked<F::Key, G>;
    const CLOSES: bool = G::CLOSES;

    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now) {
        if let Some((place, pass)) = pass.0 {
            self.of(&place).give_back(pass, why, now);
        }
    }

    #[inline]
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        if let Some((place, pass)) = pass.0 {
            self.of(&place).end(pass, how, now);
        }
    }

    fn leave(&self, KeyedTicket(place, ticket): Self::Ticket, now: &Now) {
        self.of(&place).leave(ticket, now);
    }

    #[inline]
    fn owes(&self, pass: &Self::Pass) -> bool {
        pass.0.is_some()
    }

    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        if let Some((place, held)) = &mut pass.0 {
            let renewed = self.of(place).renew(held, now);
            return renewed.map_err(|rejected| {
                let place = pass.0.take().and_then(|(place, _)| place);
                of_key(rejected, place.as_deref())
            });
        }
        Ok(())
    }

    /// Passes the event on, and lets go of the partition once the pass owes nothing.
    #[inline]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        let Some((place, held)) = &mut pass.0 else {
            return;
        };
        let gate = self.of(place);
        gate.event(held, event, now);
        if matches!(event, CallEvent::Sent | CallEvent::Upgraded(_)) && !gate.owes(held) {
            pass.0 = None;
        }
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        if let Some((place, held)) = &pass.0 {
            self.of(place).told(held, hint, now);
        }
    }

    #[inline]
    fn is_open(&self) -> bool {
        !G::CLOSES || self.only().is_none_or(Gate::is_open)
    }

    #[inline]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        self.only()
            .map_or(ControlFlow::Continue(()), |gate| gate.closing(visit))
    }
}

impl<F, G, Req> Admit<Req> for Keyed<F, G>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync> + FindKey<Req, F::Key>,
    G: Admit<Req> + Keyable,
{
    #[inline]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket> {
        if !self.parts.enabled {
            return Admission::Granted(KeyedPass(None));
        }
        let (key, mut inquiry) = self.ask(inquiry);
        let Some(key) = key else {
            return match self.parts.missing {
                Missing::Share => self.admit_in(None, inquiry, now),
                Missing::Reject => Admission::Rejected(self.parts.shared.missing_key()),
                Missing::Allow => Admission::Granted(KeyedPass(None)),
            };
        };
        let mut found = self.parts.partitions.find(key);
        loop {
            let Some(partition) = found.or_else(|| self.parts.find_or_make(key)) else {
                return match self.parts.overflow {
                    Overflow::Shared => self.admit_in(None, inquiry, now),
                    Overflow::Reject => Admission::Rejected(self.parts.shared.overflow()),
                    Overflow::Allow => Admission::Granted(KeyedPass(None)),
                };
            };
            let own = inquiry.of(|asked| asked);
            let admission = self.admit_in(Some(partition.clone()), own, now);
            if !partition.is_gone() {
                return admission;
            }
            // This partition is being evicted and its state would be lost: undo, and look the key
            // up again.
            self.undo(admission, now);
            found = None;
        }
    }

    fn poll_ticket(
        &self,
        KeyedTicket(place, ticket): &mut Self::Ticket,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass> {
        let own = inquiry.of(|asked| &mut asked.gate);
        match self.of(place).poll_ticket(ticket, own, cx, now) {
            TicketPoll::Granted(pass) => TicketPoll::Granted(KeyedPass(Some((place.take(), pass)))),
            TicketPoll::Queued => TicketPoll::Queued,
            TicketPoll::Rejected(rejected) => {
                TicketPoll::Rejected(of_key(rejected, place.as_deref()))
            }
        }
    }

    #[inline]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        match call {
            LimitedCall::Sent(KeyedPass(None)) => {}
            LimitedCall::Sent(KeyedPass(Some((place, pass)))) => {
                self.of(place).limits(LimitedCall::Sent(pass), visit);
            }
            LimitedCall::Unsent(..) if !self.parts.enabled => {}
            // No limit is advertised, so no look-up is needed.
            LimitedCall::Unsent(_, Visit::ForQuotas) if !self.parts.advertises => {}
            LimitedCall::Unsent(inquiry, why) => {
                let (key, inquiry) = self.ask(inquiry);
                let place = match (key, self.parts.missing) {
                    (Some(key), _) => self.parts.partitions.find(key),
                    (None, Missing::Share) => None,
                    (None, _) => return,
                };
                let is_certain = place.is_some() || key.is_none();
                let limit = self.of(&place);
                limit.limits(
                    LimitedCall::Unsent(inquiry, why),
                    &mut |limit| match is_certain {
                        true => visit(limit),
                        false => visit(&NewKey(limit)),
                    },
                );
            }
        }
    }
}

impl<F: HasKey<Key: Send + Sync>, G: Keyable> Keyed<F, G> {
    /// Finds the request's key, once, and returns it with the rest of the inquiry.
    #[inline]
    fn ask<'a, Req>(
        &self,
        inquiry: Inquiry<'a, Req, KeyedAsked<F::Key, G>>,
    ) -> (Option<&'a F::Key>, Inquiry<'a, Req, G::Asked>)
    where
        F: FindKey<Req, F::Key>,
    {
        let Inquiry {
            request,
            demand,
            asked: KeyedAsked { key, gate },
        } = inquiry;
        let key = key.get_or_insert_with(|| self.key.find(request));
        let rest = Inquiry {
            request,
            demand,
            asked: gate,
        };
        (key.as_ref(), rest)
    }

    #[inline]
    fn admit_in<Req>(
        &self,
        place: KeyPlace<F::Key, G>,
        inquiry: Inquiry<'_, Req, G::Asked>,
        now: &Now,
    ) -> Admission<KeyedPass<F::Key, G>, KeyedTicket<F::Key, G>>
    where
        G: Admit<Req>,
    {
        let gate = match &place {
            Some(partition) => partition.gate(),
            None => self.parts.shared_for_call(),
        };
        match gate.admit(inquiry, now) {
            Admission::Granted(pass) => Admission::Granted(KeyedPass(Some((place, pass)))),
            Admission::Queued(ticket) => Admission::Queued(KeyedTicket(place, ticket)),
            Admission::Rejected(rejected) => {
                Admission::Rejected(of_key(rejected, place.as_deref()))
            }
        }
    }

    fn undo(&self, admission: Admission<KeyedPass<F::Key, G>, KeyedTicket<F::Key, G>>, now: &Now) {
        match admission {
            Admission::Granted(pass) => self.give_back(pass, Unsent::Abandoned, now),
            Admission::Queued(ticket) => self.leave(ticket, now),
            Admission::Rejected(_) => {}
        }
    }
}

/// The limit that keys without their own share, for a key that has no limit yet. It may get its
/// own, which may admit what this one never admits.
struct NewKey<'a>(&'a dyn Quoted);

impl Quoted for NewKey<'_> {
    fn quotas(&self, now: &Now, quotas: &mut Vec<Quota>) {
        self.0.quotas(now, quotas);
    }

    fn wait(&self, now: &Now) -> Option<Duration> {
        Some(self.0.wait(now).unwrap_or_default())
    }
}

/// Notes in a rejection the key that rejected it, so that the handle can find the key.
fn of_key<K, G>(mut rejected: Box<Rejected>, place: Option<&Partition<K, G>>) -> Box<Rejected> {
    if let Some(partition) = place {
        rejected.set_key(partition.hash());
    }
    rejected
}

impl<F, G, Res> Read<Res> for Keyed<F, G>
where
    F: HasKey<Key: Send + Sync>,
    G: Read<Res> + Keyable,
{
    #[inline]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        if let Some((place, pass)) = &mut pass.0 {
            self.of(place).read(pass, response, now);
        }
    }
}

impl<K, G: Gate> Default for KeyedPass<K, G> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K, G: Gate> Default for KeyedAsked<K, G> {
    fn default() -> Self {
        Self {
            key: None,
            gate: G::Asked::default(),
        }
    }
}

impl<F: HasKey + Clone, G: Keyable> Clone for Keyed<F, G> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            parts: self.parts.clone(),
        }
    }
}

impl<F: HasKey, G: Keyable> fmt::Debug for Keyed<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl<K, G: Gate<Pass: fmt::Debug>> fmt::Debug for KeyedPass<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedPass")
            .field(&self.0.as_ref().map(|(_, pass)| pass))
            .finish()
    }
}

// Without the key, which may be private.
impl<K, G: Gate<Asked: fmt::Debug>> fmt::Debug for KeyedAsked<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedAsked").field(&self.gate).finish()
    }
}

impl<K, G: Gate<Ticket: fmt::Debug>> fmt::Debug for KeyedTicket<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedTicket").field(&self.1).finish()
    }
}
