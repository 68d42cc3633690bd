//! Who may move which ref by pushing. The shipped policies are pure.

use crate::ref_name::is_branch_name;

/// What a push does to a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefUpdateKind {
    Create,
    /// Forward or, forced, anywhere.
    Update,
    Delete,
}

/// One ref that a push wants to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// Full name, such as `refs/heads/main`; not checked for being well-formed.
    pub name: String,
    /// 40 hexadecimal digits; zeros if the ref is to be created.
    pub old: String,
    /// 40 hexadecimal digits; zeros if the ref is to be deleted.
    pub new: String,
    pub kind: RefUpdateKind,
}

/// What a policy says to one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// With a reason that the person at the git client reads: one line.
    Refuse(String),
}

/// Decides about pushes. If one update of a push is refused, none of it is done.
pub trait PushPolicy: Send + Sync {
    /// Whether this update may be done, as far as names and kinds go.
    fn decide(&self, update: &RefUpdate) -> Decision;

    /// Whether updates may drop commits (`git push --force`); known only when the pack has come.
    fn allows_force(&self) -> bool {
        true
    }

    /// Called once after a push that moved refs, before the client hears of it; must not block.
    fn pushed(&self, _updates: &[RefUpdate]) {}
}

/// For sandboxes: one branch and nothing else; no deletion. Force is allowed, the branch is the session's own.
#[derive(Debug, Clone)]
pub struct OwnBranchOnly {
    /// Without `refs/heads/`.
    pub branch: String,
}

impl PushPolicy for OwnBranchOnly {
    fn decide(&self, update: &RefUpdate) -> Decision {
        if update.name.strip_prefix("refs/heads/") != Some(&self.branch) {
            return Decision::Refuse(format!("this session may push only to {}", self.branch));
        }
        match update.kind {
            RefUpdateKind::Create | RefUpdateKind::Update => Decision::Allow,
            RefUpdateKind::Delete => Decision::Refuse("this session may not delete its branch".to_owned()),
        }
    }
}

/// For people: any branch or tag, also by force; never the forge's own refs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Member;

impl PushPolicy for Member {
    fn decide(&self, update: &RefUpdate) -> Decision {
        let short = ["refs/heads/", "refs/tags/"]
            .into_iter()
            .find_map(|prefix| update.name.strip_prefix(prefix));
        match short {
            Some(short) if is_branch_name(short) => Decision::Allow,
            Some(_) => Decision::Refuse("this name cannot be used".to_owned()),
            None => Decision::Refuse("only branches and tags can be pushed".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(policy: &dyn PushPolicy, name: &str, kind: RefUpdateKind) -> bool {
        let update = RefUpdate {
            name: name.to_owned(),
            old: String::new(),
            new: String::new(),
            kind,
        };
        policy.decide(&update) == Decision::Allow
    }

    #[test]
    fn policies() {
        use RefUpdateKind::{Create, Delete, Update};
        let own = OwnBranchOnly {
            branch: "greenroom/x-123456".to_owned(),
        };
        for (name, kind, for_sandbox, for_member) in [
            ("refs/heads/greenroom/x-123456", Create, true, true),
            ("refs/heads/greenroom/x-123456", Update, true, true),
            ("refs/heads/greenroom/x-123456", Delete, false, true),
            ("refs/heads/greenroom/x-1234567", Create, false, true),
            ("refs/heads/main", Update, false, true),
            ("refs/tags/v1", Create, false, true),
            ("refs/tags/greenroom/x-123456", Create, false, true),
            ("refs/pull/1/head", Update, false, false),
            ("refs/greenroom/pulls/1", Update, false, false),
            ("refs/notes/commits", Create, false, false),
            ("refs/replace/x", Create, false, false),
            ("refs/heads/../greenroom/pulls/1", Create, false, false),
            ("refs/heads/", Create, false, false),
            ("HEAD", Update, false, false),
        ] {
            assert_eq!(
                is_allowed(&own, name, kind),
                for_sandbox,
                "sandbox: {kind:?} {name}"
            );
            assert_eq!(
                is_allowed(&Member, name, kind),
                for_member,
                "member: {kind:?} {name}"
            );
        }
    }
}
