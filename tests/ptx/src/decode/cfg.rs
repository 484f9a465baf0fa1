//! Where diverged lanes meet again: the immediate post-dominator of each branch.
//!
//! Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm" (2001), on the reversed flow graph with one virtual exit.

/// For each instruction of a function with `successors[i]` (empty: leaves the function), the first instruction of the block
/// that immediately post-dominates it; `successors.len()` stands for the exit.
pub fn immediate_postdominators(successors: &[Vec<usize>]) -> Vec<usize> {
    let exit = successors.len();
    let mut predecessors = vec![Vec::new(); exit + 1];
    let next = |node: usize| -> &[usize] { if node == exit { &[] } else { &successors[node] } };
    for (node, followers) in successors.iter().enumerate() {
        if followers.is_empty() {
            predecessors[exit].push(node);
        }
        for &follower in followers {
            predecessors[follower].push(node);
        }
    }
    let order = postorder(exit, &predecessors);
    let mut rank = vec![usize::MAX; exit + 1];
    for (position, &node) in order.iter().enumerate() {
        rank[node] = position;
    }
    let mut parent = vec![None; exit + 1];
    parent[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().filter(|&&node| node != exit) {
            let followers = if next(node).is_empty() { std::slice::from_ref(&exit) } else { next(node) };
            let known = followers.iter().copied().filter(|&follower| parent[follower].is_some());
            let meet = known.reduce(|a, b| intersect(a, b, &parent, &rank));
            if parent[node] != meet {
                parent[node] = meet;
                changed = true;
            }
        }
    }
    // A loop without exit post-dominates nothing; its lanes never meet again before the end.
    (0..exit).map(|node| parent[node].unwrap_or(exit)).collect()
}

fn intersect(mut a: usize, mut b: usize, parent: &[Option<usize>], rank: &[usize]) -> usize {
    while a != b {
        while rank[a] < rank[b] {
            a = parent[a].expect("ranked nodes on a path to the exit have parents");
        }
        while rank[b] < rank[a] {
            b = parent[b].expect("ranked nodes on a path to the exit have parents");
        }
    }
    a
}

/// Post-order of the nodes reachable from `root`, without recursion.
fn postorder(root: usize, edges: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; edges.len()];
    let mut stack = vec![(root, 0)];
    seen[root] = true;
    while let Some((node, at)) = stack.pop() {
        match edges[node].get(at) {
            Some(&next) => {
                stack.push((node, at + 1));
                if !seen[next] {
                    seen[next] = true;
                    stack.push((next, 0));
                }
            }
            None => order.push(node),
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::immediate_postdominators;

    #[test]
    fn branches_meet_where_both_arms_lead() {
        // 0: if (1 | 2), 1 -> 3, 2 -> 3, 3: loop back to 3 or 4, 4: leaves
        let successors = vec![vec![1, 2], vec![3], vec![3], vec![3, 4], vec![]];
        assert_eq!(immediate_postdominators(&successors), [3, 3, 3, 4, 5]);
    }

    #[test]
    fn an_arm_that_leaves_meets_at_the_exit() {
        // 0: if (1 | 2), 1 leaves, 2 -> 3, 3 leaves
        let successors = vec![vec![1, 2], vec![], vec![3], vec![]];
        assert_eq!(immediate_postdominators(&successors), [4, 4, 3, 4]);
    }

    #[test]
    fn an_endless_loop_has_no_meeting_point() {
        let successors = vec![vec![1, 2], vec![1], vec![]];
        assert_eq!(immediate_postdominators(&successors), [2, 3, 3]);
    }
}
