//! The crash states of a trace: what a power cut can leave behind at any of its moments.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, Loss};
use super::trace::Trace;
use super::tree::Tree;

/// What a power cut has left behind.
#[derive(Clone)]
pub struct CrashState {
    /// The power failed before this step of the trace.
    pub step: usize,
    /// Bytes of the trace at that moment.
    pub position: u64,
    pub loss: Loss,
    pub tree: Tree,
}

impl CrashState {
    /// What repeats this state.
    pub fn name(&self) -> String {
        format!("power cut before step {} with {:?}", self.step, self.loss)
    }
}

/// Which states are made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub states: usize,
    pub seed: u64,
}

/// Losses that each cut at a sync point is tried with first.
const CERTAIN: [Loss; 4] = [Loss::Everything, Loss::Nothing, Loss::Content, Loss::Names];

/// Calls `visit` for about `plan.states` different states: each sync point with the certain losses, and random losses there and at random
/// moments between. With few states, the moments are a random sample. Returns the number of states.
pub fn visit(trace: &Trace, plan: Plan, mut visit: impl FnMut(CrashState)) -> usize {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let cuts = choose(trace, plan, &mut random);
    let (mut disk, mut seen, mut next) = (Disk::default(), HashSet::new(), cuts.into_iter().peekable());
    for step in 0..=trace.steps.len() {
        while let Some((_, loss)) = next.next_if(|(cut, _)| *cut == step) {
            let mut random = StdRng::seed_from_u64(match loss {
                Loss::Random(seed) => seed,
                _ => 0,
            });
            let tree = disk.after_power_cut(loss, &mut random);
            let position = trace.position(step);
            // The same files after more has been promised are another state.
            if seen.insert((tree.fingerprint(), position)) {
                visit(CrashState {
                    step,
                    position,
                    loss,
                    tree,
                });
            }
        }
        if let Some(step) = trace.steps.get(step) {
            disk.apply(&step.operation, trace);
        }
    }
    seen.len()
}

/// The moments and losses, in the order of the moments.
fn choose(trace: &Trace, plan: Plan, random: &mut StdRng) -> Vec<(usize, Loss)> {
    let syncs: Vec<usize> = trace
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.operation.is_sync())
        // Before the sync, and after it.
        .flat_map(|(index, _)| [index, index + 1])
        .collect();
    let certain = syncs.iter().flat_map(|cut| CERTAIN.map(|loss| (*cut, loss)));
    let mut chosen: Vec<_> = certain.collect();
    while chosen.len() > plan.states / 2 {
        chosen.swap_remove(random.random_range(0..chosen.len()));
    }
    while chosen.len() < plan.states {
        let cut = match random.random_bool(0.5) && !syncs.is_empty() {
            true => syncs[random.random_range(0..syncs.len())],
            false => random.random_range(0..=trace.steps.len()),
        };
        chosen.push((cut, Loss::Random(random.random())));
    }
    chosen.sort_by_key(|(cut, _)| *cut);
    chosen
}
