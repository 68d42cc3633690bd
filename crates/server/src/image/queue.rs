//! Whose image is built next. One of a repository at a time, each repository once in the queue: so nobody's many pushes keep others
//! waiting. Pure.

use greenroom_protocol::id::ImageId;
use std::collections::VecDeque;

/// A build that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub image: ImageId,
    pub repository: String,
    pub from_scratch: bool,
}

/// Builds that wait and those that run.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    /// Repositories.
    running: Vec<String>,
}

impl Queue {
    /// The build of a repository that waits already, if there is one. It begins with the newest commit anyway; one from nothing is
    /// what it becomes if that is asked for.
    pub fn joined(&mut self, repository: &str, from_scratch: bool) -> Option<ImageId> {
        let waiting = self
            .waiting
            .iter_mut()
            .find(|waiting| waiting.repository == repository)?;
        waiting.from_scratch |= from_scratch;
        Some(waiting.image.clone())
    }

    /// Puts a build at the end.
    pub fn push(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Takes the first build whose repository has none that runs, unless `limit` run.
    pub fn next(&mut self, limit: usize) -> Option<Waiting> {
        if self.running.len() >= limit {
            return None;
        }
        let is_free = |waiting: &Waiting| !self.running.contains(&waiting.repository);
        let position = self.waiting.iter().position(is_free)?;
        let next = self.waiting.remove(position)?;
        self.running.push(next.repository.clone());
        Some(next)
    }

    /// A repository's build ended.
    pub fn done(&mut self, repository: &str) {
        self.running.retain(|running| running != repository);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_take_turns() {
        let mut queue = Queue::default();
        let waiting = |number: u128, repository: &str| Waiting {
            image: ImageId::from_bits(number),
            repository: repository.to_owned(),
            from_scratch: false,
        };
        for (number, repository) in [(1, "busy"), (2, "other"), (3, "third")] {
            assert_eq!(queue.joined(repository, false), None);
            queue.push(waiting(number, repository));
        }
        assert_eq!(queue.joined("busy", true), Some(ImageId::from_bits(1)));
        assert_eq!(queue.joined("busy", false), Some(ImageId::from_bits(1)));
        let first = queue.next(2).unwrap();
        assert!(first.repository == "busy" && first.from_scratch);
        // It runs, so a new one waits behind the others.
        assert_eq!(queue.joined("busy", false), None);
        queue.push(waiting(4, "busy"));
        assert_eq!(queue.next(2).unwrap().repository, "other");
        assert_eq!(queue.next(2), None, "two are the most");
        queue.done("other");
        assert_eq!(queue.next(2).unwrap().repository, "third");
        queue.done("third");
        assert_eq!(queue.next(2), None, "only one of a repository at a time");
        queue.done("busy");
        assert_eq!(queue.next(2).unwrap().image, ImageId::from_bits(4));
    }
}
