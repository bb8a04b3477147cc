//! Programs with the names and answers of Pacemaker's, and the cluster's configuration in a folder.
//!
//! `cibadmin` knows the constraint of hotpair and what is asked about it, no more. The exit codes are
//! those of Pacemaker 2: 105 for what is not there, 108 for what is there already.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A cluster whose members are in the file `members`, the constraint in `constraint` (`NODE EPOCH RUN`),
/// the state of nodes that are none in `states`, when beta was fenced in `fenced`, and what the cluster knows
/// of its resources in `resources`.
pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
}

/// What the cluster says of a node that was fenced, or stopped in order; `fenced` tells the two apart.
pub(crate) const OFF: &str = "in_ccm=\"false\" crmd=\"offline\" join=\"down\" expected=\"down\"";
/// And of one that is lost.
pub(crate) const LOST: &str = "in_ccm=\"false\" crmd=\"offline\" join=\"down\" expected=\"member\"";

const CIBADMIN: &str = r##"#!/bin/sh
cd FOLDER || exit 1
echo "cibadmin $*" >> calls
[ ! -e hangs ] || exec sleep 60
case "$*" in *--delete*|*--create*|*--replace*) [ ! -e slow ] || { exec 9> changing; echo >&9; sleep 2; } ;; esac
xml() {
  read -r node epoch run < constraint
  printf '<rsc_location id="hotpair-fence-RESOURCE" rsc="RESOURCE-clone">\n'
  printf '  <rule id="hotpair-fence-RESOURCE-e%s-%s-%s" role="Promoted" score="-INFINITY">\n' "$epoch" "$node" "$run"
  printf '    <expression id="x" attribute="#uname" operation="ne" value="%s"/>\n' "$node"
  printf '  </rule>\n</rsc_location>\n'
}
is_named() {
  read -r node epoch run < constraint || exit 105
  case "$*" in *"'hotpair-fence-RESOURCE-e$epoch-$node-$run'"*) ;; *) exit 105 ;; esac
}
place() {
  echo "$*" | sed -n 's/.*<rule id="hotpair-fence-RESOURCE-e\([0-9]*\)-[^"]*-\([0-9a-f]*\)".* value="\([^"]*\)".*/\3 \1 \2/p' > constraint
  [ ! -e taken-away ] || rm constraint
  [ ! -e members-after ] || mv members-after members
}
case "$*" in
  *--create*)
    [ ! -e faster ] || mv faster constraint
    [ ! -e constraint ] || exit 108
    place "$*" ;;
  *--replace*) is_named "$*"; place "$*" ;;
  *--delete*) is_named "$*"; rm constraint ;;
  *node_state*)
    peer=${*##*uname=\'}
    echo "<node_state uname=\"${peer%%\'*}\" $(cat states)>"
    [ ! -e resources ] || cat resources
    echo '</node_state>' ;;
  *--node-path*) [ ! -e bare ] && echo "/cib/configuration/resources/clone[@id='RESOURCE-clone']" ;;
  *rsc_location*) [ -e constraint ] && xml || exit 105 ;;
  *) exit 64 ;;
esac
"##;
const CRM_NODE: &str = "#!/bin/sh\ncd FOLDER && cat members\n";
const CRM_ATTRIBUTE: &str =
    "#!/bin/sh\n[ ! -e FOLDER/without-stonith ] || cat FOLDER/without-stonith\n";
const STONITH_ADMIN: &str = "#!/bin/sh\n[ ! -e FOLDER/fenced ] || cat FOLDER/fenced\n";

impl Cluster {
    /// Both nodes are members, and there is no constraint.
    pub(crate) fn new(folder: &Path, resource: &str) -> Self {
        for (name, text) in [
            ("cibadmin", CIBADMIN),
            ("crm_node", CRM_NODE),
            ("crm_attribute", CRM_ATTRIBUTE),
            ("stonith_admin", STONITH_ADMIN),
        ] {
            let text = text.replace("FOLDER", folder.to_str().unwrap());
            Self::program(&folder.join(name), &text.replace("RESOURCE", resource));
        }
        let cluster = Self { folder: folder.to_owned() };
        cluster.is("members", "alpha beta");
        cluster.is("states", LOST);
        cluster
    }

    fn program(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A fence command that runs the script of the repository in this cluster.
    #[allow(dead_code, reason = "for daemons, which give their commands no environment of ours")]
    pub(crate) fn fence_command(&self) -> PathBuf {
        let path = self.folder.join("fence");
        let folder = self.folder.display();
        let text = format!("#!/bin/sh\nPATH={folder}:$PATH exec {} \"$@\"\n", script().display());
        Self::program(&path, &text);
        path
    }

    /// Writes a file of the cluster.
    #[expect(
        clippy::disallowed_methods,
        reason = "nobody's data, and nothing that outlives the test"
    )]
    pub(crate) fn is(&self, name: &str, text: &str) {
        // A script never sees half of it.
        let new = self.folder.join("new");
        fs::write(&new, format!("{text}\n")).unwrap();
        fs::rename(&new, self.folder.join(name)).unwrap();
    }

    /// The node that alone may be promoted, and the epoch at which that was said.
    pub(crate) fn constraint(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("constraint")).ok()?;
        Some(text.split_whitespace().take(2).collect::<Vec<&str>>().join(" "))
    }
}

/// The script that comes with hotpair.
pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/pacemaker-fence")
}
