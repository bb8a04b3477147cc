//! PostgreSQL on ext4 on the export of whichever node serves.

use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::postgres::{Clients, Database, Place, SIZE, check};

/// What was committed before the primary was lost, and before the role was moved in the middle of writes,
/// is there on the other node, and PostgreSQL finds its files sound.
pub(crate) fn commits() {
    let plan = Plan { size: SIZE, has_witness: true, ..Plan::default() };
    let mut pair = Pair::start_empty(plan);
    let place = Place::new();
    let mut database = Database::create(&place, &pair, 0);

    let clients = Clients::start(&place, 0, &pair.news);
    pair.nodes[0].kill();
    let mut noted = clients.join(&pair.news);
    database.abandon();
    database = Database::open(&place, &pair, 1);
    check(&place, &noted);
    pair.nodes[0].run();
    pair.wait_in_sync();

    let clients = Clients::start(&place, 1, &pair.news);
    pair.nodes[1].well(&["switchover", RESOURCE]);
    noted.extend(clients.join(&pair.news));
    database.abandon();
    database = Database::open(&place, &pair, 0);
    check(&place, &noted);

    database.stop();
    pair.wait_in_sync();
    for at in [1, 0] {
        pair.nodes[at].stop();
    }
    pair.equal_image();
}
