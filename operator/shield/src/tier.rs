//! How much a request matters, and what its class may always use.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many classes one target may have.
///
/// A route has at most 16 rules in Gateway API and a class stands for a rule, so this is four full
/// routes; while requests wait, each decision looks at every class once.
pub const MAX_CLASSES: usize = 64;

/// How much a request matters: under overload the least important is shed first.
///
/// The most important comes first, so that `Core < Ancillary` reads "goes before".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Tier {
    /// What the service exists for: showing a code, paying, signing in.
    Core,
    /// What most visits need.
    Important,
    /// What a visit may need.
    #[default]
    General,
    /// What nobody misses during a peak: statistics, history, export.
    Ancillary,
}

impl Tier {
    /// All tiers, the most important first.
    pub const ALL: [Self; 4] = [Self::Core, Self::Important, Self::General, Self::Ancillary];

    /// Where the tier stands in [`Tier::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Core => 0,
            Self::Important => 1,
            Self::General => 2,
            Self::Ancillary => 3,
        }
    }
}

/// A kind of request to one target: the routes or rules that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// How much its requests matter.
    pub tier: Tier,
    /// The share of the target's concurrency that it may always use, whatever the other classes do.
    pub guaranteed_percent: Option<u8>,
}

/// Which class of its target a request belongs to. It stays true when the classes are changed: of a class
/// that is gone, requests of before may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId {
    pub(crate) number: u64,
    /// How much it mattered when it was asked for; what counts if the class is gone.
    pub(crate) tier: Tier,
}

/// The classes of one target: at least one, and no more guaranteed than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    all: Vec<Class>,
    /// By which each is known for as long as it is there.
    numbers: Vec<u64>,
    /// The first number that no class has had.
    next: u64,
}

impl Classes {
    /// Takes the classes in the order in which [`Classes::id`] numbers them.
    pub fn new(classes: Vec<Class>) -> Result<Self, ClassError> {
        if classes.is_empty() {
            return Err(ClassError::None);
        }
        if classes.len() > MAX_CLASSES {
            return Err(ClassError::TooMany(classes.len()));
        }
        let sum = classes
            .iter()
            .filter_map(|class| class.guaranteed_percent)
            .map(u32::from)
            .sum();
        if sum > 100 {
            return Err(ClassError::Overcommitted(sum));
        }
        Ok(Self::numbered(classes))
    }

    /// One class that guarantees nothing: a target whose requests are all alike.
    pub fn single(tier: Tier) -> Self {
        Self::numbered(vec![Class {
            tier,
            guaranteed_percent: None,
        }])
    }

    /// The identity of the class at this position.
    pub fn id(&self, position: usize) -> Option<ClassId> {
        let number = *self.numbers.get(position)?;
        let tier = self.all.get(position)?.tier;
        Some(ClassId { number, tier })
    }

    /// The classes in order.
    pub fn as_slice(&self) -> &[Class] {
        &self.all
    }

    /// The classes that these become, in order: those that stay keep their identity, all others get one
    /// that no class of this target has had.
    ///
    /// `known` says for each of them where it stood before.
    pub(crate) fn become_these(&self, mut new: Self, known: &[Option<usize>]) -> Self {
        let mut next = self.next;
        for (at, number) in new.numbers.iter_mut().enumerate() {
            let before = known.get(at).copied().flatten();
            *number = before
                .and_then(|before| self.numbers.get(before).copied())
                .unwrap_or_else(|| {
                    next += 1;
                    next - 1
                });
        }
        new.next = next;
        new
    }

    /// The identities in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (ClassId, Class)> {
        let numbered = self.numbers.iter().zip(&self.all);
        numbered.map(|(&number, &class)| {
            let tier = class.tier;
            (ClassId { number, tier }, class)
        })
    }

    fn numbered(all: Vec<Class>) -> Self {
        let numbers: Vec<u64> = (0..).take(all.len()).collect();
        let next = numbers.last().map_or(0, |last| last + 1);
        Self { all, numbers, next }
    }
}

/// Why classes cannot stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassError {
    /// There is none, so no request could enter.
    None,
    /// There are so many, more than [`MAX_CLASSES`].
    TooMany(usize),
    /// Together they guarantee this percentage, more than there is.
    Overcommitted(u32),
}

impl fmt::Display for ClassError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(out, "a target needs at least one class"),
            Self::TooMany(count) => write!(
                out,
                "{count} classes on one target; at most {MAX_CLASSES} are allowed, let routes share classes"
            ),
            Self::Overcommitted(sum) => write!(
                out,
                "the classes guarantee {sum} % of the concurrency; at most 100 % is allowed, lower some guaranteedPercent"
            ),
        }
    }
}

impl Error for ClassError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn guaranteed(percent: u8) -> Class {
        Class {
            tier: Tier::Core,
            guaranteed_percent: Some(percent),
        }
    }

    #[test]
    fn the_most_important_tier_comes_first_and_is_written_by_its_name() {
        assert!(Tier::ALL.is_sorted());
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            assert_eq!(tier.index(), index);
        }
        assert_eq!(serde_json::to_string(&Tier::Core).unwrap(), r#""Core""#);
        assert_eq!(
            serde_json::from_str::<Tier>(r#""Ancillary""#).unwrap(),
            Tier::Ancillary
        );
    }

    #[test]
    fn classes_guarantee_at_most_everything_and_are_bounded_in_number() {
        assert_eq!(Classes::new(vec![]), Err(ClassError::None));
        assert_eq!(
            Classes::new(vec![guaranteed(0); MAX_CLASSES + 1]),
            Err(ClassError::TooMany(MAX_CLASSES + 1))
        );
        assert_eq!(
            Classes::new(vec![guaranteed(60), guaranteed(41)]),
            Err(ClassError::Overcommitted(101))
        );
        let classes = Classes::new(vec![guaranteed(60), guaranteed(40)]).unwrap();
        assert!(classes.id(1).is_some_and(|id| Some(id) != classes.id(0)));
        assert_eq!(classes.id(2), None);
        assert_eq!(Classes::single(Tier::Core).as_slice().len(), 1);
    }

    #[test]
    fn a_class_that_stays_is_the_same_and_a_number_is_given_once() {
        let first = Classes::new(vec![guaranteed(1), guaranteed(2)]).unwrap();
        let two = Classes::new(vec![guaranteed(3), guaranteed(4)]).unwrap();
        let second = first.become_these(two.clone(), &[None, Some(0)]);
        assert_eq!(second.id(1), first.id(0));
        assert!(second.id(0) != first.id(0) && second.id(0) != first.id(1));
        let third = second.become_these(two, &[Some(0), None]);
        assert_eq!(third.id(0), second.id(0));
        let gone = [first.id(0), first.id(1), second.id(0)];
        assert!(!gone.contains(&third.id(1)), "{third:?}");
    }

    #[test]
    fn a_refused_set_of_classes_says_what_is_allowed() {
        for (error, says) in [
            (ClassError::None, "at least one"),
            (ClassError::TooMany(70), "at most 64"),
            (ClassError::Overcommitted(120), "at most 100 %"),
        ] {
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
