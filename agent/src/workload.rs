//! What pods of one workload have in common.

/// Labels that controllers give single pods, revisions or runs: they tell pods of one workload apart, or change with it.
const FLEETING: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
    "controller-uid",
    "job-name",
];

/// Whether a label stays the same as long as its workload does.
#[must_use]
pub fn is_stable(key: &str) -> bool {
    !FLEETING.contains(&key)
}
