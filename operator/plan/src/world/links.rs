//! Links and LinkGrants behind the gate.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crds::{
    AppName, Approval, ContentHash, Link, LinkGrant, LinkGrantSpec, LinkSpec, LinkStatus,
    NamespaceName, Reason, Uid, label,
};

use super::World;
use super::gate::{Parked, Verdict};
use crate::content::hash_of;

/// Where a Link lives, and its name.
pub type LinkKey = (NamespaceName, Box<str>);

/// A Link as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct LinkSlot {
    /// UID.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Everybody who had a hand in it; `None` when that is not known.
    pub authors: Option<BTreeSet<Box<str>>>,
    /// The Link, or why it is parked.
    pub state: Verdict<LinkSpec>,
    /// Hash of what it says.
    pub hash: ContentHash,
    /// Status as last written.
    pub status: Arc<LinkStatus>,
}

impl World {
    /// Takes in a Link.
    ///
    /// # Panics
    /// Never: a Link holds nothing that JSON cannot say.
    pub fn apply_link(&mut self, link: Link) {
        let meta = &link.metadata;
        let notes = meta.annotations.as_ref();
        let by = notes.and_then(|notes| notes.get(label::CHANGED_BY));
        let by = by.filter(|by| *by != label::MANY);
        let said = serde_json::to_string(&link.spec).expect("a Link is plain JSON");
        let slot = LinkSlot {
            uid: meta.uid.clone().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_millisecond()),
            authors: by.map(|by| by.lines().map(Into::into).collect()),
            hash: hash_of(said.as_bytes()),
            state: link_gate(&link.spec).map(|()| Arc::new(link.spec)),
            status: Arc::new(link.status.unwrap_or_default()),
        };
        let key = (
            NamespaceName::from(meta.namespace.clone().unwrap_or_default()),
            meta.name.clone().unwrap_or_default().into(),
        );
        if let Ok(spec) = &slot.state {
            let from = spec
                .from
                .app_names
                .iter()
                .map(|name| (key.0.clone(), name.clone()));
            let to = (spec.to.namespace.clone(), spec.to.app_name.clone());
            self.linked_apps.extend(from.chain([to]));
        }
        let before = self.links.insert(key, slot.clone());
        let same = before.is_some_and(|before| {
            (before.generation, before.hash, before.authors)
                == (slot.generation, slot.hash, slot.authors)
        });
        self.link_changes += u64::from(!same);
        self.link_echoes += 1;
    }

    /// Forgets a Link that was deleted.
    pub fn remove_link(&mut self, namespace: &NamespaceName, name: &str) {
        let key = (namespace.clone(), name.into());
        self.link_changes += u64::from(self.links.remove(&key).is_some());
    }

    /// Takes in a LinkGrant.
    pub fn apply_link_grant(&mut self, grant: LinkGrant) {
        let key = (
            NamespaceName::from(grant.metadata.namespace.unwrap_or_default()),
            grant.metadata.name.unwrap_or_default().into(),
        );
        self.link_grants.insert(key, Arc::new(grant.spec));
        self.link_changes += 1;
    }

    /// Forgets a LinkGrant that was deleted.
    pub fn remove_link_grant(&mut self, namespace: &NamespaceName, name: &str) {
        let key = (namespace.clone(), name.into());
        self.link_changes += u64::from(self.link_grants.remove(&key).is_some());
    }

    /// All Links, valid and parked.
    pub fn links(&self) -> impl Iterator<Item = (&LinkKey, &LinkSlot)> {
        self.links.iter()
    }

    /// LinkGrants of a namespace.
    pub(crate) fn link_grants_of(
        &self,
        namespace: &NamespaceName,
    ) -> impl Iterator<Item = &LinkGrantSpec> {
        let all = self.link_grants.range((namespace.clone(), "".into())..);
        let here = all.take_while(move |((home, _), _)| home == namespace);
        here.map(|(_, grant)| &**grant)
    }

    /// Notes that an App came, went or changed its zone or grade, if a Link names it.
    pub(super) fn touch_links_of(&mut self, namespace: &NamespaceName, name: &AppName) {
        let named = self
            .linked_apps
            .contains(&(namespace.clone(), name.clone()));
        self.link_changes += u64::from(named);
    }

    /// Notes that an Approval came or went, if it is about a Link.
    pub(super) fn touch_link(&mut self, approval: &Approval) {
        self.link_changes += u64::from(approval.spec.target.kind == "Link");
    }
}

/// What schemas cannot say: a bad address would be refused by every cluster.
fn link_gate(spec: &LinkSpec) -> Result<(), Parked> {
    let from = spec.from.addresses.iter().map(|one| ("from", one));
    let to = spec.to.addresses.iter().map(|one| ("to", one));
    for (side, address) in from.chain(to) {
        if let Err(why) = check_range(address) {
            let message = format!("spec.{side}.addresses has {address}, {why}");
            return Err(Parked::new(Reason::Invalid, message));
        }
    }
    Ok(())
}

/// Whether text is a range of addresses that a Link may name.
fn check_range(text: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "which is no range of addresses: write one as in 10.20.0.0/16";
    let (address, length) = text.split_once('/').ok_or(SHAPE)?;
    let address: IpAddr = address.parse().map_err(|_| SHAPE)?;
    let length: u32 = length.parse().map_err(|_| SHAPE)?;
    let (bits, width, least) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, 8),
        IpAddr::V6(v6) => (v6.to_bits(), 128, 16),
    };
    if length > width {
        return Err(SHAPE);
    }
    if length < least {
        return Err("which is nearly everything: name the range that the other side really has");
    }
    let inside = width - length;
    if inside < 128 && bits & ((1_u128 << inside) - 1) != 0 {
        return Err("which begins within a range: set the bits beyond its length to zero");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_addresses_is_written_as_kubernetes_takes_it_and_is_not_everything() {
        for good in [
            "10.20.0.0/16",
            "192.0.2.7/32",
            "2001:db8::/32",
            "10.0.0.0/8",
        ] {
            assert_eq!(check_range(good), Ok(()), "{good}");
        }
        for bad in [
            "10.20.0.0",
            "10.20.0/16",
            "010.20.0.0/16",
            "10.20.0.0/33",
            "10.20.0.1/16",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::1/32",
            "a/8",
            "10.0.0.0/",
        ] {
            assert!(check_range(bad).is_err(), "{bad}");
        }
    }
}
