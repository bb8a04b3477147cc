//! What is said of hooks.

use super::*;

#[test]
fn hooks_of_a_node_take_the_place_of_the_common_ones_key_by_key() {
    let text = good()
        + "[resource.vm1.hooks]\npromote = [\"systemd:db.service\"]\ndemote = [\"/etc/stop\"]\n\
           virtual_ip = { address = \"192.0.2.10/24\", device = \"eth0\" }\nstop_within = \"2s\"\n\
           [resource.vm1.on.beta.hooks]\ndemote = []\n";
    let config = parse(&text).unwrap().config;
    let [alpha, beta] = config.resources[0].on.each_ref().map(|on| on.hooks.clone().unwrap());
    assert_eq!(alpha.promote, [Hook::Unit("db.service".to_owned())]);
    assert_eq!((&beta.promote, &beta.virtual_ip), (&alpha.promote, &alpha.virtual_ip));
    assert_eq!((alpha.demote.len(), beta.demote.len()), (1, 0));
    assert_eq!((alpha.stop_within.as_secs(), alpha.timeout.as_secs()), (2, 60));
    // Beta waits for what has to stop on alpha, and alpha for nothing: an address goes at once.
    let budget =
        |name: &str| config.for_node(name).unwrap().resources[0].peer_stop_budget.as_secs();
    assert_eq!((budget("beta"), budget("alpha")), (2, 0));
    let hash = |text: &str| parse(text).unwrap().config.for_node("beta").unwrap();
    let slower = text.replace("\"2s\"", "\"3s\"");
    assert_ne!(hash(&text).resources[0].settings_hash, hash(&slower).resources[0].settings_hash);
    let other = text.replace("db.service", "web.service");
    assert_eq!(hash(&text).resources[0].settings_hash, hash(&other).resources[0].settings_hash);
}

#[test]
fn what_is_no_hook_is_named() {
    let said = |hooks: &str| complaints(&(good() + "[resource.vm1.hooks]\n" + hooks)).join("\n");
    for (hooks, why) in [
        ("promote = [\"start-site\"]", "expected an absolute path without"),
        ("promote = [\"systemd:db\"]", "or a unit, such as"),
        ("demote = [\"systemd:-x.service\"]", "or a unit, such as"),
        ("virtual_ip = { address = \"192.0.2.10\", device = \"eth0\" }", "a prefix length"),
        ("virtual_ip = { address = \"127.0.0.1/8\", device = \"eth0\" }", "an address of one host"),
        ("virtual_ip = { address = \"192.0.2.10/24\", device = \"-eth0\" }", "a network interface"),
        ("virtual_ip = { address = \"192.0.2.10/24\" }", "`device`"),
    ] {
        let found = said(hooks);
        assert!(found.contains(why), "{hooks}: {found}");
    }
    let many = format!("promote = {:?}", vec!["/bin/true"; 17]);
    assert!(said(&many).contains("at most 16 hooks run at a change of role, found 17"));
}
