//! Where a resource would rather be, when it moves back there, and how often it may move by itself.

use std::time::Duration;

use toml::Spanned;

use super::Promotion;
use super::check::{Check, of};
use super::file::{File, PromotionSection};
use super::mistake::{Caution, Mistake, time};
use super::promotion::Auto;
use super::values::{Text, TimeSpan};

/// When a resource moves back to its `prefer` node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failback {
    /// An operator moves it.
    Manual,
    /// After so long in sync without an event.
    After(Duration),
}

impl Text for Failback {
    const EXPECTED: &'static str = "\"manual\" or \"after TIME\", such as \"after 10m\"";

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("after ") {
            Some(span) => TimeSpan::read(span).map(|span| Self::After(span.0)),
            None => (text == "manual").then_some(Self::Manual),
        }
    }
}

/// So many automatic promotions of a resource in such a time, and no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlapLimit {
    /// How many.
    pub promotions: u8,
    /// In which time.
    pub within: Duration,
}

impl Default for FlapLimit {
    fn default() -> Self {
        Self { promotions: 2, within: Duration::from_mins(10) }
    }
}

impl Text for FlapLimit {
    const EXPECTED: &'static str =
        "\"COUNT in TIME\" with a count of 1 to 100, such as \"2 in 10m\"";

    fn read(text: &str) -> Option<Self> {
        let (count, span) = text.split_once(" in ")?;
        let promotions = count.parse().ok().filter(|count| (1..=PROMOTIONS_MAX).contains(count))?;
        Some(Self { promotions, within: TimeSpan::read(span)?.0 })
    }
}

impl Check {
    pub(super) fn failback(&mut self, section: &PromotionSection) -> Failback {
        let Some(written) = &section.failback else { return Failback::Manual };
        let failback = *of(written);
        if let Failback::After(after) = failback
            && after < FAILBACK_MIN
        {
            let why = "a node that has just come back is to prove itself first";
            let wrong = Mistake::TooSmall { key: "failback", least: "after 1m", why };
            self.wrong(written.span(), wrong);
        }
        failback
    }

    pub(super) fn flap_limit(
        &mut self,
        section: &PromotionSection,
        auto: Option<Auto>,
    ) -> FlapLimit {
        let Some(written) = &section.flap_limit else { return FlapLimit::default() };
        if auto == Some(Auto::Off) {
            self.warn(written.span(), Caution::AutomaticOnly { key: "flap_limit" });
        }
        *of(written)
    }

    /// What moves back by itself needs a place to go to, and leave to move.
    pub(super) fn way_back(&mut self, file: &File, promotion: &Promotion) {
        let Some(written) = &file.promotion.failback else { return };
        let Failback::After(after) = promotion.failback else { return };
        let value = format!("after {}", time(after));
        if promotion.auto == Auto::Off || !promotion.arbiter.is_asked() {
            let why = "moves a resource without an operator, which `auto` does not allow";
            let mend = "set failback = \"manual\", or auto = \"arbiter\" with a witness or etcd"
                .to_owned();
            self.wrong(written.span(), Mistake::Failback { value, why, mend });
        } else if file.resource.values().all(|section| section.prefer.is_none()) {
            let why = "has nowhere to go: no resource names a node in `prefer`";
            let last = file.resource.keys().max_by_key(|name| Spanned::span(name).start);
            let mend = format!(
                "write under [resource.{}] the node that it is to move back to, such as prefer = \
                 \"alpha\", or set failback = \"manual\"",
                last.map_or("NAME", |name| name.get_ref().as_str())
            );
            self.wrong(written.span(), Mistake::Failback { value, why, mend });
        }
    }
}

impl Promotion {
    /// What both nodes must agree on of this, as text; empty where nothing but the default is.
    pub(super) fn moving_text(&self) -> String {
        let failback = match self.failback {
            Failback::Manual => String::new(),
            Failback::After(after) => format!(" failback={}", after.as_nanos()),
        };
        let FlapLimit { promotions, within } = self.flap_limit;
        if self.flap_limit == FlapLimit::default() {
            return failback;
        }
        format!("{failback} flap_limit={promotions}/{}", within.as_nanos())
    }
}

/// The least time in sync before a resource moves back by itself.
const FAILBACK_MIN: Duration = Duration::from_mins(1);
/// Most automatic promotions that can be told of in a heartbeat, and more than anybody wants.
const PROMOTIONS_MAX: u8 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{complaints, good};
    use crate::config::{NodeResource, parse};
    use crate::units::Side;

    const AUTOMATIC: &str = "[promotion]\nauto = \"arbiter\"\narbiter = \"witness\"\n\
                             witness = \"192.0.2.3:7787\"\n";

    fn vm1(text: &str) -> NodeResource {
        parse(text).unwrap().config.for_node("beta").unwrap().resources[0].clone()
    }

    #[test]
    fn a_flap_limit_is_a_count_in_a_time() {
        let within = Duration::from_hours(1);
        assert_eq!(FlapLimit::read("3 in 1h"), Some(FlapLimit { promotions: 3, within }));
        assert_eq!(FlapLimit::read("2 in 10m"), Some(FlapLimit::default()));
        for bad in ["", "2", "in 10m", "0 in 10m", "101 in 10m", "2 in 0s", "-1 in 5m", "2 per 5m"]
        {
            assert_eq!(FlapLimit::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_preferred_node_is_known_to_both() {
        let prefers = good() + "prefer = \"beta\"\n" + AUTOMATIC;
        assert_eq!(vm1(&prefers).prefer, Some(Side::Second));
        assert_eq!(vm1(&(good() + AUTOMATIC)).prefer, None);
        let parsed = parse(&(prefers.clone() + "failback = \"after 10m\"\n")).unwrap();
        let expected = Failback::After(Duration::from_mins(10));
        assert_eq!(parsed.config.promotion.failback, expected);
        assert_eq!(parsed.config.promotion.flap_limit, FlapLimit::default());
        // Nodes that want different things would move a resource to and fro.
        let hashes = [
            good() + AUTOMATIC,
            prefers.clone(),
            prefers.clone() + "failback = \"after 10m\"\n",
            prefers.clone() + "flap_limit = \"3 in 1h\"\n",
        ]
        .map(|text| vm1(&text).settings_hash);
        assert_eq!(std::collections::BTreeSet::from(hashes).len(), 4);
        let same = prefers + "failback = \"manual\"\nflap_limit = \"2 in 10m\"\n";
        assert_eq!(vm1(&same).settings_hash, hashes[1]);
    }

    #[test]
    fn what_moves_back_by_itself_needs_a_place_and_leave_to_move() {
        let failback = "failback = \"after 10m\"\n";
        assert_eq!(
            complaints(&(good() + AUTOMATIC + failback)),
            [
                "18: failback = \"after 10m\" has nowhere to go: no resource names a node in `prefer`: \
              write under [resource.vm1] the node that it is to move back to, such as prefer = \
              \"alpha\", or set failback = \"manual\""
            ]
        );
        let by_hand = AUTOMATIC.replace("auto = \"arbiter\"", "auto = \"off\"");
        assert_eq!(
            complaints(&(good() + "prefer = \"alpha\"\n" + &by_hand + failback)),
            [
                "19: failback = \"after 10m\" moves a resource without an operator, which `auto` does \
              not allow: set failback = \"manual\", or auto = \"arbiter\" with a witness or etcd"
            ]
        );
        let short = "failback = \"after 30s\"\n";
        assert_eq!(
            complaints(&(good() + "prefer = \"alpha\"\n" + AUTOMATIC + short)),
            [
                "19: `failback` is below after 1m: a node that has just come back is to prove itself \
              first: write after 1m or more"
            ]
        );
        let limit = by_hand + "flap_limit = \"2 in 10m\"\n";
        let parsed = parse(&(good() + &limit)).unwrap();
        let said = parsed.warnings.iter().map(|it| it.what().to_string());
        assert!(said.into_iter().any(|it| it == "`flap_limit` has no effect with auto = \"off\""));
    }
}
