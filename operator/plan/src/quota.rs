//! The arithmetic of grants.
//!
//! An inner grant is carved from the outer one and caps its subtree. What a grant does not use it lends,
//! up to its lending limit; what it needs beyond its nominal amount it borrows from what the others under
//! the same grant do not use, up to its borrowing limit. What a grant lends to nobody is reserved, and
//! counts as used towards the grant above. A Region's budget is a grant like any other, above all.
//!
//! ```text
//! used(n)  = own(n) + sum of held(children)
//! held(n)  = max(used(n), nominal(n) - lends(n))
//! room(n)  : the most that own(n) may grow by, so that used <= nominal + borrows for n and all above it
//! ```
//!
//! A cut of a grant, or one that is made where much is used already, may leave more used than allowed:
//! then there is no room until that has passed, and nothing is taken away here.

/// Position of a grant.
pub type Node = usize;

/// One resource of one grant, in its smallest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What it may always have.
    pub nominal: i64,
    /// What it may borrow beyond.
    pub borrows: i64,
    /// What of it others may borrow; at most `nominal`.
    pub lends: i64,
}

impl Grant {
    /// A budget: all of it may be used by anybody below.
    pub fn budget(amount: i64) -> Self {
        Self {
            nominal: amount,
            borrows: 0,
            lends: amount,
        }
    }

    fn reserved(&self) -> i64 {
        self.nominal - self.lends
    }
}

/// Grants and what is used of them, parents before their children.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    places: Vec<Place>,
    /// Grants whose use changed since somebody asked.
    touched: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    parent: Option<Node>,
    grant: Grant,
    /// What is used by those who draw on this very grant.
    own: i64,
    /// `own` and what the children hold.
    used: i64,
    /// What of `nominal` is granted on to the children.
    carved: i64,
    /// Whether nothing more may be used.
    closed: bool,
}

impl Place {
    fn held(&self) -> i64 {
        self.used.max(self.grant.reserved())
    }

    /// What may still be used here as far as this grant says.
    fn left(&self, borrowing: bool) -> i64 {
        let borrows = if borrowing { self.grant.borrows } else { 0 };
        let most = self.grant.nominal.saturating_add(borrows);
        let left = most.saturating_sub(self.used);
        // What is kept below may be used of a closed grant as well, but not beyond what it has.
        if self.closed { left.min(0) } else { left }
    }

    /// What may be used without the grant above noticing: it is reserved already.
    fn slack(&self) -> i64 {
        (self.grant.reserved() - self.used).max(0)
    }
}

impl Tree {
    /// Adds a grant; its parent must be there.
    pub fn add(&mut self, parent: Option<Node>, grant: Grant) -> Node {
        self.places.push(Place {
            parent,
            grant,
            own: 0,
            used: 0,
            carved: 0,
            closed: false,
        });
        if let Some(parent) = parent {
            self.places[parent].carved += grant.nominal;
            self.spend(parent, grant.reserved());
        }
        self.places.len() - 1
    }

    /// Adds a grant of which it is only known what it was: it is used as it is and by no more, and nothing is
    /// carved for it.
    pub fn add_lost(&mut self, parent: Option<Node>, grant: Grant) -> Node {
        let node = self.add(parent, Grant::default());
        self.places[node].grant = grant;
        self.close(node);
        node
    }

    /// Changes a grant; what is used of it stays as it is.
    pub fn set(&mut self, node: Node, grant: Grant) {
        let place = &mut self.places[node];
        let (before, parent) = (place.held(), place.parent);
        let more = grant.nominal - place.grant.nominal;
        place.grant = grant;
        let change = place.held() - before;
        self.touched.push(node);
        if let Some(parent) = parent {
            self.places[parent].carved += more;
            self.touched.push(parent);
            self.spend(parent, change);
        }
    }

    /// Lets nobody use more of a grant.
    pub fn close(&mut self, node: Node) {
        self.places[node].closed = true;
    }

    /// Whether nothing more may be used of a grant, or of one on the way up to another.
    pub fn is_closed(&self, node: Node, top: Node) -> bool {
        let mut next = Some(node);
        while let Some(at) = next {
            if self.places[at].closed {
                return true;
            }
            next = self.places[at].parent.filter(|_| at != top);
        }
        false
    }

    /// The grant itself.
    pub fn grant(&self, node: Node) -> Grant {
        self.places[node].grant
    }

    /// The grant above.
    pub fn parent(&self, node: Node) -> Option<Node> {
        self.places[node].parent
    }

    /// What is used, with what the children keep for themselves.
    pub fn used(&self, node: Node) -> i64 {
        self.places[node].used
    }

    /// What is used by those who draw on this very grant.
    pub fn own(&self, node: Node) -> i64 {
        self.places[node].own
    }

    /// What is granted on to the children.
    pub fn carved(&self, node: Node) -> i64 {
        self.places[node].carved
    }

    /// What is used beyond the nominal amount.
    pub fn borrowed(&self, node: Node) -> i64 {
        let place = &self.places[node];
        (place.used - place.grant.nominal).max(0)
    }

    /// What others under the same grant use of what each is granted. Nobody knows whose part a borrower
    /// has, so what nobody is granted counts as used first, and the rest in proportion to what each leaves.
    pub fn lent(&self) -> Vec<i64> {
        let idle = |place: &Place| (place.grant.nominal - place.held()).max(0);
        let (mut loans, mut offers) = (
            vec![0_i64; self.places.len()],
            vec![0_i64; self.places.len()],
        );
        for (node, place) in self.places.iter().enumerate() {
            // What it takes of what it granted on, or leaves of what it did not.
            loans[node] += place.own - (place.grant.nominal - place.carved);
            if let Some(parent) = place.parent {
                loans[parent] += self.borrowed(node);
                offers[parent] += idle(place);
            }
        }
        let part = |place: &Place| {
            let parent = place.parent?;
            let (loan, offer) = (loans[parent].min(offers[parent]), offers[parent]);
            let part = i128::from(idle(place)) * i128::from(loan.max(0)) / i128::from(offer.max(1));
            i64::try_from(part).ok()
        };
        self.places
            .iter()
            .map(|place| part(place).unwrap_or(0))
            .collect()
    }

    /// How much more may be used of a grant by those who draw on it directly.
    pub fn room(&self, node: Node) -> i64 {
        self.tightest(node).0
    }

    /// The room of a grant, and which grant on the way up it is that leaves no more.
    pub fn tightest(&self, node: Node) -> (i64, Node) {
        let (room, tightest) = self.tightest_of(node, true);
        (room.max(0), tightest)
    }

    /// The same; below zero where more is used than may be.
    pub fn shortfall(&self, node: Node) -> (i64, Node) {
        self.tightest_of(node, true)
    }

    /// The same, when nobody uses any more of what others are granted than he does: neither of those
    /// beside him nor of those below.
    pub fn tightest_nominal(&self, node: Node) -> (i64, Node) {
        let place = &self.places[node];
        let kept = (place.grant.nominal - place.carved - place.own).max(0);
        let tightest = self.tightest_of(node, false);
        if kept < tightest.0 {
            (kept, node)
        } else {
            (tightest.0.max(0), tightest.1)
        }
    }

    fn tightest_of(&self, node: Node, borrowing: bool) -> (i64, Node) {
        let (mut slacks, mut tightest) = (0_i64, (i64::MAX, node));
        let mut next = Some(node);
        while let Some(at) = next {
            let place = &self.places[at];
            let room = slacks.saturating_add(place.left(borrowing));
            if room < tightest.0 {
                tightest = (room, at);
            }
            slacks = slacks.saturating_add(place.slack());
            next = place.parent;
        }
        tightest
    }

    /// Takes in that so much more, or less, of a grant is used directly.
    pub fn charge(&mut self, node: Node, amount: i64) {
        self.places[node].own += amount;
        self.spend(node, amount);
    }

    /// Carries a change of use up as far as anybody notices.
    fn spend(&mut self, node: Node, amount: i64) {
        let (mut next, mut change) = (Some(node), amount);
        while let Some(at) = next.filter(|_| change != 0) {
            let place = &mut self.places[at];
            let before = place.held();
            place.used += change;
            change = place.held() - before;
            next = place.parent;
            self.touched.push(at);
        }
    }

    /// Grants whose use changed since the last time, some of them more than once.
    pub fn take_touched(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.touched)
    }
}
