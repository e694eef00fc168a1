//! How long the source waits for what: one set of numbers for a gateway; tests wait less.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the first news to the conclusion: slices change one after the other, and Pods beside them.
    pub settle: Duration,
    /// How often it is said that what was said still holds, while the API is heard.
    pub still_true: Duration,
    /// A start waits so long for the API before it uses the snapshot.
    pub patience: Duration,
    /// A list, one page of it, and the beginning of a watch may take so long.
    pub answer: Duration,
    /// A watch in which nothing was heard for so long has died unnoticed. Bookmarks come every minute where the server sends
    /// them; where it does not, the watch is begun again at the same place, which costs one request.
    pub silence: Duration,
    /// The waits after failures: doubled from the first to the longest, each shortened by up to half.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// Two watches begin at least this far apart, however soon the server ends them.
    pub apart: Duration,
    /// A list is read again after this at the latest, shortened by up to a quarter: a watch may be silent for ever.
    pub renew: Duration,
    /// So long after a node died where the API says that it lives, or its name began to lead elsewhere, lists are read again,
    /// where the watch has not told before; the waits after that are doubled up to the longest.
    pub suspicion: Duration,
    pub longest_suspicion: Duration,
    /// The name of a node that is up where it leads is asked for this often, shortened by up to a quarter.
    pub names: Duration,
    /// So long after the first list that lacks a node which answers, a second one is believed. One server that knows only half,
    /// such as one that has just started, says the same twice within this time.
    pub doubt: Duration,
    /// Pods that are forbidden for so long are meant to be: an API server that has just started forbids everything for a moment.
    pub forbidden: Duration,
    /// A node that has been silent for so long is asked at its other addresses, and again this often.
    pub elsewhere: Duration,
    /// Without a Pod of its name for so long, a node has left: a StatefulSet replaces a pod within seconds.
    pub left: Duration,
    /// The same where Pods may not be watched: a pod that is not scheduled for hours and one that was scaled away look alike.
    pub left_unseen: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(100),
            still_true: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            silence: Duration::from_secs(100),
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
            apart: Duration::from_secs(1),
            renew: Duration::from_secs(300),
            suspicion: Duration::from_secs(5),
            longest_suspicion: Duration::from_secs(300),
            names: Duration::from_secs(120),
            doubt: Duration::from_secs(60),
            forbidden: Duration::from_secs(10),
            elsewhere: Duration::from_secs(3),
            left: Duration::from_secs(60),
            left_unseen: Duration::from_secs(24 * 60 * 60),
        }
    }
}
