//! What protects the routes of Apps, as the tenant's own rights allow.

use super::{ContentState, Work};
use crate::render::render_policy;

impl Work<'_> {
    /// Keeps a policy as its entry says. It waits for no App: what it names may come later.
    pub(super) fn protect(&mut self, content: ContentState<'_>) {
        let Some(content) = self.content(content) else {
            return;
        };
        let objects = match render_policy(self.entry, content, self.observed.home) {
            Ok(objects) => objects,
            Err(error) => return self.refuse(&error),
        };
        if !self.namespace_ready() {
            return;
        }
        for object in &objects {
            self.object(object);
        }
        self.prune(&objects);
    }
}

#[cfg(test)]
mod tests;
