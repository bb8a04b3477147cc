//! Programs with the names and answers of Pacemaker's, and the cluster's configuration in a folder.
//!
//! `cibadmin` knows the constraint of hotpair and what is asked about it, no more. What the programs print
//! and how they end is as Pacemaker 2.1.5 does in the cluster of `tools/pacemaker-check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A cluster whose members are in the file `members`, the constraint in `constraint` (`NODE EPOCH RUN`),
/// the state of nodes that are none in `states`, when beta was fenced in `fenced`, and what the cluster knows
/// of its resources in `resources`. A member that is `deaf` is cut off, and nobody has noticed.
pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
}

/// What the cluster says of a node that was fenced, or stopped in order; `fenced` tells the two apart.
pub(crate) const OFF: &str = "in_ccm=\"false\" crmd=\"offline\" crm-debug-origin=\"send_stonith_update\" join=\"down\" expected=\"down\"";
/// And of one that is lost.
pub(crate) const LOST: &str = "in_ccm=\"false\" crmd=\"offline\" crm-debug-origin=\"post_cache_update\" join=\"member\" expected=\"member\"";

const CIBADMIN: &str = r##"#!/bin/sh
cd FOLDER || exit 1
echo "cibadmin $*" >> calls
[ ! -e hangs ] || exec sleep 60
case "$*" in *--delete*|*--create*|*--replace*) [ ! -e slow ] || { exec 9> changing; echo >&9; sleep 2; } ;; esac
failed() {
  echo "Call cib_$2 failed: $3" >&2
  exit "$1"
}
xml() {
  read -r node epoch run < constraint
  rule="hotpair-fence-RESOURCE-e$epoch-$node-$run"
  printf '<rsc_location id="hotpair-fence-RESOURCE" rsc="RESOURCE-clone">\n'
  printf '  <rule id="%s" role="Promoted" score="-INFINITY">\n' "$rule"
  printf '    <expression id="%s-node" attribute="#uname" operation="ne" value="%s"/>\n' "$rule" "$node"
  printf '  </rule>\n</rsc_location>\n'
}
is_named() {
  [ -e constraint ] && read -r node epoch run < constraint || return 1
  case "$*" in *"'hotpair-fence-RESOURCE-e$epoch-$node-$run'"*) ;; *) return 1 ;; esac
}
place() {
  echo "$*" | sed -n 's/.*<rule id="hotpair-fence-RESOURCE-e\([0-9]*\)-[^"]*-\([0-9a-f]*\)".* value="\([^"]*\)".*/\3 \1 \2/p' > constraint
  [ ! -e taken-away ] || rm constraint
  [ ! -e members-after ] || mv members-after members
}
is_member() {
  grep -qw -- "$1" members
}
case "$*" in
  *--create*)
    [ ! -e faster ] || mv faster constraint
    if [ -e constraint ]; then
      printf '<failed>\n  <failed_update id="hotpair-fence-RESOURCE" object_type="rsc_location" operation="cib_create" reason="File exists">\n'
      printf '    %s\n  </failed_update>\n</failed>\n' "${*##*--xml-text }"
      failed 108 create 'File exists'
    fi
    place "$*" ;;
  *--replace*) is_named "$*" && place "$*" || failed 105 replace 'No such device or address' ;;
  # Nothing there to be deleted is no failure.
  *--delete*) ! is_named "$*" || rm constraint ;;
  *"--node "*)
    peer=${*##*--node } peer=${peer%% *}
    # As with --timeout; the real one waits for 30 s.
    is_member "$peer" && [ ! -e deaf ] || failed 124 query 'Timer expired'
    is_named "$*" && xml || failed 105 query 'No such device or address' ;;
  *crm_config*)
    echo '<xpath-query>'
    [ ! -e stonith ] || echo "  <nvpair id=\"o3\" name=\"$(cat stonith)\"/>"
    echo "  <nvpair id=\"cib-bootstrap-options-dc-version\" name=\"dc-version\" value=\"$(cat release)\"/>"
    echo '</xpath-query>' ;;
  *node_state*)
    peer=${*##*uname=\'} peer=${peer%%\'*}
    if is_member "$peer"; then
      echo "<node_state id=\"2\" uname=\"$peer\" in_ccm=\"true\" crmd=\"online\" crm-debug-origin=\"do_update_resource\" join=\"member\" expected=\"member\">"
      printf '  <lrm id="2">\n    <lrm_resources/>\n  </lrm>\n</node_state>\n'
    elif [ -e resources ]; then
      printf '<node_state id="2" uname="%s" %s>\n  %s\n</node_state>\n' "$peer" "$(cat states)" "$(cat resources)"
    else
      printf '<node_state id="2" uname="%s" %s/>\n' "$peer" "$(cat states)"
    fi ;;
  *--node-path*)
    [ ! -e bare ] || failed 105 query 'No such device or address'
    echo "/cib/configuration/resources/clone[@id='RESOURCE-clone']" ;;
  *rsc_location*) [ -e constraint ] && xml || failed 105 query 'No such device or address' ;;
  *) exit 64 ;;
esac
"##;
const STONITH_ADMIN: &str =
    "#!/bin/sh\n[ ! -e FOLDER/fenced ] || cat FOLDER/fenced\necho '0 events found'\n";

impl Cluster {
    /// Both nodes are members, and there is no constraint.
    pub(crate) fn new(folder: &Path, resource: &str) -> Self {
        for (name, text) in [("cibadmin", CIBADMIN), ("stonith_admin", STONITH_ADMIN)] {
            let text = text.replace("FOLDER", folder.to_str().unwrap());
            Self::program(&folder.join(name), &text.replace("RESOURCE", resource));
        }
        let cluster = Self { folder: folder.to_owned() };
        cluster.is("members", "alpha beta");
        cluster.is("states", LOST);
        cluster.is("release", "2.1.5-a3f44794f94");
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
