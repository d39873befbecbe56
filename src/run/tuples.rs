//! Tuples of layers, from the outside in.

use crate::run::Through;

/// A service behind a layer.
type Within<'a, L, S> = <&'a L as Through<S>>::Service;

impl<'a, A, S> Through<S> for &'a (A,)
where
    &'a A: Through<S>,
{
    type Service = Within<'a, A, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        self.0.through(inner)
    }
}

impl<'a, A, B, S> Through<S> for &'a (A, B)
where
    &'a B: Through<S>,
    &'a A: Through<Within<'a, B, S>>,
{
    type Service = Within<'a, A, Within<'a, B, S>>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        self.0.through(self.1.through(inner))
    }
}

impl<'a, A, B, C, S> Through<S> for &'a (A, B, C)
where
    &'a C: Through<S>,
    &'a B: Through<Within<'a, C, S>>,
    &'a A: Through<Within<'a, B, Within<'a, C, S>>>,
{
    type Service = Within<'a, A, Within<'a, B, Within<'a, C, S>>>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        let (first, second, third) = self;
        first.through(second.through(third.through(inner)))
    }
}

impl<'a, A, B, C, D, S> Through<S> for &'a (A, B, C, D)
where
    &'a D: Through<S>,
    &'a C: Through<Within<'a, D, S>>,
    &'a B: Through<Within<'a, C, Within<'a, D, S>>>,
    &'a A: Through<Within<'a, B, Within<'a, C, Within<'a, D, S>>>>,
{
    type Service = Within<'a, A, Within<'a, B, Within<'a, C, Within<'a, D, S>>>>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        let (first, second, third, fourth) = self;
        first.through(second.through(third.through(fourth.through(inner))))
    }
}
