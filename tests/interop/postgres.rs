//! PostgreSQL on ext4 on the export: what it said was committed is there after the primary died.
//!
//! A ledger client beside pgbench commits numbers. `HOTPAIR_PG_KILLS` says how often a primary dies; roles
//! alternate.

use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::postgres::{Clients, Database, Place, SIZE, check};

/// No kill of a primary loses a committed number or doubles one, and PostgreSQL's own checks of
/// heap, indexes and checksums find nothing.
pub(crate) fn what_was_committed_survives_a_kill_of_the_primary() {
    let kills = std::env::var("HOTPAIR_PG_KILLS").map_or(1, |text| text.parse().unwrap());
    let mut pair = Pair::start_empty(Plan { size: SIZE, ..Plan::default() });
    let place = Place::new();
    let mut primary = 0;
    let mut database = Database::create(&place, &pair, primary);
    let mut noted = Vec::new();
    for kill in 0..kills {
        let clients = Clients::start(&place, kill, &pair.news);
        pair.nodes[primary].kill();
        noted.extend(clients.join(&pair.news));
        database.abandon();

        let (old, new) = (primary, 1 - primary);
        pair.nodes[new].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
        database = Database::open(&place, &pair, new);
        check(&place, &noted);
        pair.nodes[old].run();
        pair.wait_in_sync();
        primary = new;
    }
    database.stop();
    pair.wait_in_sync();
    for node in &mut pair.nodes {
        node.stop();
    }
    pair.equal_image();
}
