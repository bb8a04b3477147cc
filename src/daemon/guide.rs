//! What an operator types when the nodes do not come together.
//!
//! The link says what does not fit, without knowing what a node or a file is called; here it gets
//! the names.

use crate::config::NodeConfig;
use crate::link::{LinkError, Mismatch, Security, Trouble};
use crate::replica::Input;

/// The names that a way out needs.
#[derive(Clone, Debug)]
pub(super) struct Guide {
    node: String,
    peer: String,
    resource: String,
    /// Fingerprint of this node, with TLS.
    mine: Option<String>,
}

impl Guide {
    /// For one resource of `node`.
    pub(super) fn new(node: &NodeConfig, security: &Security, resource: &str) -> Self {
        Self {
            node: node.node.name.clone(),
            peer: node.peer.name.clone(),
            resource: resource.to_owned(),
            mine: security.fingerprint(),
        }
    }

    /// What the core is told about a connection that was not made.
    pub(super) fn no_link(&self, trouble: &Trouble) -> Input {
        let next = trouble.mismatch.map(|mismatch| self.mend(mismatch));
        Input::NoLink { why: trouble.why.clone(), next }
    }

    /// The same about one that ended before the peer had said a word.
    pub(super) fn silent_peer(&self, error: &LinkError) -> Input {
        self.no_link(&error.trouble(&self.peer, self.mine.as_deref()))
    }

    fn mend(&self, mismatch: Mismatch) -> String {
        let Self { node, peer, resource, .. } = self;
        match mismatch {
            Mismatch::TheirKey => format!(
                "type on {peer}: hotpair identity; write what it prints as `identity` under \
                 [node.{peer}] into the configuration of both nodes, and restart both daemons"
            ),
            Mismatch::OurKey => format!(
                "type here: hotpair identity; write what it prints as `identity` under \
                 [node.{node}] into the configuration of both nodes, and restart both daemons"
            ),
            Mismatch::Encryption => {
                "write the same `encryption` under [link] into the configuration of both nodes, \
                 check it on each with hotpair config check, and restart both daemons"
                    .to_owned()
            }
            Mismatch::Names => "use one configuration file on both nodes, check it on each with \
                                hotpair config check, and restart both daemons"
                .to_owned(),
            Mismatch::Unsaid => format!("on {peer}: hotpair explain {resource}"),
        }
    }
}
