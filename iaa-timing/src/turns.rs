//! Queues: which one an engine looks at first.

/// The order in which an engine looks at the queues of its device: by priority, the highest first; those
/// of the same priority have turns.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Queue and priority, in that order.
    order: Vec<(usize, u8)>,
}

impl Turns {
    /// That of queues with these priorities, numbered from 0 on.
    #[must_use]
    pub fn new(priorities: impl IntoIterator<Item = u8>) -> Self {
        let mut order: Vec<_> = priorities.into_iter().enumerate().collect();
        order.sort_by_key(|&(_, priority)| std::cmp::Reverse(priority));
        Self { order }
    }

    /// The queues in their order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|&(queue, _)| queue)
    }

    /// A queue was served: it comes behind all others of its priority.
    pub fn serve(&mut self, queue: usize) {
        let Some(at) = self.iter().position(|other| other == queue) else { return };
        let priority = self.order[at].1;
        let same = self.order[at..].iter().take_while(|(_, other)| *other == priority).count();
        self.order[at..at + same].rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_is_first_and_equals_have_turns() {
        let mut turns = Turns::new([3, 7, 3, 7, 1]);
        let order = |turns: &Turns| turns.iter().collect::<Vec<_>>();
        assert_eq!(order(&turns), [1, 3, 0, 2, 4]);
        turns.serve(1);
        assert_eq!(order(&turns), [3, 1, 0, 2, 4]);
        turns.serve(2);
        assert_eq!(order(&turns), [3, 1, 0, 2, 4], "it was behind already");
        turns.serve(0);
        turns.serve(4);
        turns.serve(5);
        assert_eq!(order(&turns), [3, 1, 2, 0, 4]);
    }
}
