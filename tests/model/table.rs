//! The line of a search in the table of `docs/dev/MODEL.md`, made from its bounds.

use crate::bounds::{Begin, Bounds, Left};
use crate::third::ThirdLeft;

impl Bounds {
    /// `| name | bounds | states |`.
    pub(crate) fn row(&self, states: usize) -> String {
        let parts = [
            Some(self.begins().to_owned()),
            list(&self.what_happens()),
            self.is_at_risk(),
            list(&self.typed.iter().map(|typed| (1, format!("{typed:?}"))).collect::<Vec<_>>()),
            self.slow(),
            self.comes_back.then(|| "service comes back".to_owned()),
        ];
        let bounds: Vec<_> = parts.into_iter().flatten().collect();
        format!("| {} | {} | {states} |", self.name, bounds.join("; "))
    }

    fn begins(&self) -> &'static str {
        match self.begin {
            Begin::InSync => "in sync",
            Begin::Written => "written",
            Begin::Alone => "first is alone",
            Begin::Missing => "grace runs",
            Begin::Pledged => "written, pledge given",
            Begin::Unheard => "first misses the arbiter",
            Begin::Deaf => "second misses the arbiter",
            Begin::Followed => "second asked and follows",
            Begin::Restarted => "both restarted",
        }
    }

    /// Everything that is counted, and how often.
    fn what_happens(&self) -> Vec<(u8, String)> {
        let Left { writes, reads, flushes, kills, power_losses, cuts, commands, time, .. } =
            self.left;
        let Left { put_backs, connections, .. } = self.left;
        let mut counted = vec![
            (writes, "write"),
            (reads, "read"),
            (flushes, "flush"),
            (kills, "death"),
            (power_losses, "power loss"),
            (cuts, "cut"),
            (connections, "connection"),
            (put_backs, "old image"),
            (commands, "command"),
            (time, "passing of time"),
        ];
        let ThirdLeft { looks, repeats, beats, suspicions, restarts, disorder, losses, .. } =
            self.third.unwrap_or_default();
        let ThirdLeft { waits, epochs, datagrams, absences, returns, slow_stores, .. } =
            self.third.unwrap_or_default();
        counted.extend([
            (epochs, "epoch"),
            (suspicions, "suspicion"),
            (looks, "look"),
            (beats, "beat"),
            (repeats, "repeat"),
            (disorder, "disorder"),
            (losses, "lost reply"),
            (waits, "wait"),
            (datagrams, "datagram"),
            (absences, "absence"),
            (returns, "return"),
            (restarts, "death of the arbiter"),
            (slow_stores, "slow store"),
        ]);
        counted.into_iter().map(|(count, name)| (count, name.to_owned())).collect()
    }

    /// Which nodes may die or lose power.
    fn is_at_risk(&self) -> Option<String> {
        match *self.mortal {
            [] => None,
            [at] => Some(format!("of node {at} only")),
            _ => Some("of either node".to_owned()),
        }
    }

    fn slow(&self) -> Option<String> {
        let quick = self.quick;
        let kinds = [
            (quick.data, "data"),
            (quick.records, "records"),
            (quick.frames, "frames"),
            (quick.words, "words"),
        ];
        let slow: Vec<_> =
            kinds.iter().filter(|(quick, _)| !quick).map(|(_, name)| *name).collect();
        if slow.len() == kinds.len() {
            return Some("all slow".to_owned());
        }
        (!slow.is_empty()).then(|| format!("slow {}", slow.join(" and ")))
    }
}

/// What may happen at all, with how often if that is more than once.
fn list(counted: &[(u8, String)]) -> Option<String> {
    let named: Vec<_> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| if *count == 1 { name.clone() } else { format!("{count} x {name}") })
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}
