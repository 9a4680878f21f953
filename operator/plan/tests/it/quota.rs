//! The arithmetic of grants, against a judge that computes everything anew from its definition.

use plan::quota::{Grant, Node, Tree};
use proptest::prelude::*;

/// A grant and its parent, as a test remembers them.
#[derive(Clone, Debug)]
struct Known {
    parent: Option<Node>,
    grant: Grant,
    own: i64,
}

/// A tree and what is known of it.
struct Bed {
    budget: i64,
    known: Vec<Known>,
    tree: Tree,
}

impl Bed {
    fn new(budget: i64) -> Self {
        let mut tree = Tree::default();
        tree.add(None, Grant::budget(budget));
        Self {
            budget,
            known: Vec::new(),
            tree,
        }
    }

    fn room(&self, node: Node) -> i64 {
        self.tree.room(node + 1)
    }

    fn add(&mut self, parent: Option<Node>, (nominal, borrows, lends): (i64, i64, i64)) -> Node {
        let grant = Grant {
            nominal,
            borrows,
            lends,
        };
        let own = 0;
        self.known.push(Known { parent, grant, own });
        // The budget is the first node.
        self.tree.add(Some(parent.map_or(0, |at| at + 1)), grant) - 1
    }

    fn use_more(&mut self, node: Node, amount: i64) {
        self.known[node].own += amount;
        self.tree.charge(node + 1, amount);
    }

    fn children(&self, node: Option<Node>) -> impl Iterator<Item = Node> {
        (0..self.known.len()).filter(move |at| self.known[*at].parent == node)
    }

    fn used(&self, node: Node) -> i64 {
        let held = |child| self.held(child);
        self.known[node].own + self.children(Some(node)).map(held).sum::<i64>()
    }

    fn held(&self, node: Node) -> i64 {
        let grant = self.known[node].grant;
        self.used(node).max(grant.nominal - grant.lends)
    }

    /// Whether everything that must always hold does.
    fn holds(&self) -> bool {
        let within = |node: Node| {
            let grant = self.known[node].grant;
            self.used(node) <= grant.nominal + grant.borrows
        };
        let roots: i64 = self.children(None).map(|root| self.held(root)).sum();
        (0..self.known.len()).all(within) && roots <= self.budget
    }

    /// Whether an App of a tenant could use so much more, by trying it.
    fn could(&mut self, node: Node, amount: i64) -> bool {
        self.known[node].own += amount;
        let holds = self.holds();
        self.known[node].own -= amount;
        holds
    }
}

#[test]
fn what_a_sibling_does_not_use_is_borrowed_up_to_the_limit() {
    let mut bed = Bed::new(100);
    let health = bed.add(None, (40, 20, 40));
    let police = bed.add(None, (60, 0, 60));
    assert_eq!(bed.room(health), 60);
    bed.use_more(police, 50);
    assert_eq!(bed.room(health), 50);
    bed.use_more(health, 50);
    assert_eq!((bed.tree.borrowed(health + 1), bed.room(health)), (10, 0));
    assert_eq!(
        bed.room(police),
        0,
        "until health gives back what it borrowed"
    );
}

#[test]
fn what_is_lent_to_nobody_is_kept() {
    let mut bed = Bed::new(100);
    let health = bed.add(None, (40, 60, 40));
    let police = bed.add(None, (60, 0, 10));
    assert_eq!(bed.room(health), 50);
    bed.use_more(health, 50);
    assert_eq!(bed.room(police), 50);
}

#[test]
fn an_inner_grant_is_carved_from_the_outer_and_caps_its_subtree() {
    let mut bed = Bed::new(100);
    let health = bed.add(None, (40, 0, 40));
    let cdc = bed.add(Some(health), (30, 0, 30));
    assert_eq!((bed.room(health), bed.room(cdc)), (40, 30));
    bed.use_more(health, 25);
    assert_eq!(bed.room(cdc), 15, "its parent borrowed ten of its thirty");
    bed.use_more(cdc, 15);
    assert_eq!((bed.tree.used(health + 1), bed.room(health)), (40, 0));
}

#[test]
fn what_is_lent_is_what_nobody_was_granted_first_and_then_of_all_in_proportion_to_what_they_leave()
{
    let mut bed = Bed::new(100);
    let health = bed.add(None, (20, 80, 20));
    let police = bed.add(None, (40, 0, 40));
    let tax = bed.add(None, (20, 0, 10));
    let lent = |bed: &Bed| [health, police, tax].map(|node| bed.tree.lent()[node + 1]);
    bed.use_more(health, 40);
    assert_eq!(lent(&bed), [0, 0, 0], "twenty were granted to nobody");
    bed.use_more(health, 10);
    assert_eq!(lent(&bed), [0, 8, 2], "tax keeps ten of its twenty");
    bed.use_more(police, 35);
    assert_eq!(
        lent(&bed),
        [0, 3, 6],
        "what nobody leaves is not lent twice"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        parent: usize,
        nominal: i64,
        borrows: i64,
        lends: i64,
    },
    More {
        node: usize,
        part: i64,
    },
    Less {
        node: usize,
        part: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..8usize, 0..60i64, 0..40i64, 0..=100i64)
            .prop_map(|(parent, nominal, borrows, lends)| Step::Add { parent, nominal, borrows, lends }),
        3 => (0..8usize, 1..=100i64).prop_map(|(node, part)| Step::More { node, part }),
        2 => (0..8usize, 1..=100i64).prop_map(|(node, part)| Step::Less { node, part }),
    ]
}

impl Bed {
    /// Carves what is asked for, as far as the parent has it to give.
    fn carve(&mut self, parent: usize, nominal: i64, borrows: i64, lends: i64) {
        let parent = parent.checked_sub(1).filter(|at| *at < self.known.len());
        let given: i64 = self
            .children(parent)
            .map(|c| self.known[c].grant.nominal)
            .sum();
        let whole = parent.map_or(self.budget, |at| self.known[at].grant.nominal);
        let nominal = nominal.min(whole - given);
        let lends = nominal * lends / 100;
        // What is reserved for it must not be in use.
        let reserved = nominal - lends;
        let fits = if let Some(parent) = parent {
            self.could(parent, reserved)
        } else {
            let roots: i64 = self.children(None).map(|root| self.held(root)).sum();
            roots + reserved <= self.budget
        };
        if fits && self.known.len() < 8 {
            self.add(parent, (nominal, borrows, lends));
        }
    }

    fn take(&mut self, step: &Step) {
        let count = self.known.len().max(1);
        match *step {
            Step::Add {
                parent,
                nominal,
                borrows,
                lends,
            } => self.carve(parent, nominal, borrows, lends),
            Step::More { node, part } if !self.known.is_empty() => {
                let node = node % count;
                self.use_more(node, self.room(node) * part / 100);
            }
            Step::Less { node, part } if !self.known.is_empty() => {
                let node = node % count;
                self.use_more(node, -(self.known[node].own * part / 100));
            }
            Step::More { .. } | Step::Less { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_used_within_the_room_there_is_nothing_is_overcommitted(
        budget in 1..200i64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut bed = Bed::new(budget);
        for step in &steps {
            bed.take(step);
            prop_assert!(bed.holds(), "{:?}", bed.known);
            for node in 0..bed.known.len() {
                prop_assert_eq!(bed.tree.used(node + 1), bed.used(node));
                let room = bed.room(node);
                prop_assert!(bed.could(node, room), "the room is there");
                prop_assert!(!bed.could(node, room + 1), "and no more");
            }
            let lent = bed.tree.lent();
            for node in 0..bed.known.len() {
                let idle = bed.known[node].grant.nominal - bed.held(node);
                prop_assert!((0..=idle.max(0)).contains(&lent[node + 1]));
            }
        }
    }
}

#[test]
fn what_is_kept_below_a_closed_grant_may_be_used_as_far_as_it_has_anything_left() {
    let mut bed = Bed::new(100);
    let above = bed.add(None, (10, 0, 10));
    let kept = bed.add(Some(above), (4, 0, 0));
    let lends = bed.add(Some(above), (4, 0, 4));
    bed.tree.close(above + 1);
    assert_eq!((bed.room(kept), bed.room(lends)), (4, 0));
    // More is used than there is, as after a cut.
    bed.use_more(above, 7);
    assert_eq!((bed.room(kept), bed.room(lends)), (3, 0));
    bed.use_more(above, 4);
    assert_eq!(bed.room(kept), 0);
}
