//! A configuration file.

use annotate_snippets::Renderer;
use hotpair::config::{parse, state_dirs, text_of};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = text_of(bytes.to_vec()) else { return };
    match parse(&text) {
        Ok(parsed) => {
            for node in &parsed.config.nodes {
                let config = parsed.config.for_node(&node.name).expect("it is one of them");
                assert_ne!(config.node.name, config.peer.name);
            }
            for warning in &parsed.warnings {
                assert!(!warning.render("f", &text, &Renderer::plain()).is_empty());
            }
        }
        Err(error) => {
            let shown = error.render("f", &text, &Renderer::plain());
            assert!(shown.contains("error: "), "{shown}");
        }
    }
    let _ = state_dirs(&text);
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    let key = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let other = "sha256//BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";
    let least = format!(
        "cluster = \"office\"\n[link]\nencryption = \"none\"\n\
         [node.beta]\nreplication = \"192.0.2.2:7788\"\nidentity = \"{other}\"\n\
         [node.alpha]\nreplication = \"192.0.2.1:7788\"\nidentity = \"{key}\"\n\
         [resource.vm1]\nkind = \"block\"\npath = \"/srv/vm1.img\"\nsize = \"20GiB\"\n"
    );
    let most = format!(
        "{least}mode = \"async\"\nprefer = \"alpha\"\nflush = \"both\"\n\
         export = \"unix:/run/hotpair/vm1.nbd\"\n\
         at_risk_budget = {{ bytes = \"64MiB\", age = \"5s\" }}\nresync_rate = \"100MiB\"\n\
         [resource.vm1.on.beta]\npath = \"/data/vm1.img\"\n\
         [heartbeat]\ninterval = \"200ms\"\nsuspect_after = \"1s\"\n\
         [promotion]\nauto = \"off\"\narbiter = \"none\"\n"
    );
    [least, most, String::new(), "cluster = 5\n[node]\n".to_owned()]
        .map(String::into_bytes)
        .to_vec()
}
