//! What a node remembers of its tree beside the register: bytes of its own at the end of the block.

use super::super::worker::{closed_of, local_register};
use crate::manifest::source::Register;
use crate::store::tree::apply::REGISTER_LEN;
use crate::units::{Label, TreePosition};

/// The byte of a node's own register that says that the node lost power since it was known what the tree is.
const LOST_POWER_AT: usize = REGISTER_LEN - 2;
/// The byte that says that somebody else has written to the tree.
const FOREIGN_AT: usize = REGISTER_LEN - 3;
/// The byte that says that the tree went back to an earlier generation, of which the core knows nothing yet.
const WENT_BACK_AT: usize = REGISTER_LEN - 4;
const WENT_BACK: u8 = 1;
/// It did, and goes to what the register names: until it is there it may have to be what it was.
const LEAVES: u8 = 2;
/// So many bytes at the end are no part of the block of the core.
pub(in super::super) const FLAGS_LEN: usize = 4;

/// Whether the tree is not what a node's own register says, because somebody else has written to it.
pub(in super::super) fn has_foreign(register: &[u8; REGISTER_LEN]) -> bool {
    register[FOREIGN_AT] != 0
}

/// Whether the tree is what an operator went back to, whatever the register says that the core has; or was, and
/// goes to what the register names.
pub(in super::super) fn went_back(register: &[u8; REGISTER_LEN]) -> bool {
    register[WENT_BACK_AT] != 0
}

/// Whether the tree leaves what an operator went back to.
pub(in super::super) fn leaves_way_back(register: &[u8; REGISTER_LEN]) -> bool {
    register[WENT_BACK_AT] == LEAVES
}

pub(in super::super) fn set_foreign(register: &mut [u8; REGISTER_LEN]) {
    register[FOREIGN_AT] = 1;
}

pub(in super::super) fn set_went_back(register: &mut [u8; REGISTER_LEN]) {
    register[WENT_BACK_AT] = WENT_BACK;
}

pub(in super::super) fn set_leaves_way_back(register: &mut [u8; REGISTER_LEN]) {
    register[WENT_BACK_AT] = LEAVES;
}

/// What a node is to remember that was on its way back, or on the way from there to what another node leads to,
/// and came to rest as `tree`. `None` if that is what it remembers. `core` is the register that the core has.
pub(in super::super) fn mend_way_back(
    kept: &[u8; REGISTER_LEN],
    tree: TreePosition,
    core: Option<&Register>,
) -> Option<Box<[u8; REGISTER_LEN]>> {
    let is_serving = kept[REGISTER_LEN - 1] != 0;
    if !went_back(kept) || is_serving {
        return None;
    }
    if closed_of(kept).is_some_and(|it| it.position == tree) {
        let mut register = Box::new(*kept);
        register[WENT_BACK_AT] = 0;
        return leaves_way_back(kept).then_some(register);
    }
    let mut register = if core.and_then(Register::position) == Some(tree) {
        local_register(core, false)
    } else {
        // An operator had gone back before that, and nobody has served since.
        let went_back = Register::Complete { position: tree, label: Label::Fuzzy };
        let mut register = local_register(Some(&went_back), false);
        set_went_back(&mut register);
        register
    };
    for at in [FOREIGN_AT, LOST_POWER_AT] {
        register[at] = kept[at];
    }
    Some(register)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{TreeNumber, TreeRoot};

    fn at(number: u64) -> TreePosition {
        TreePosition { number: TreeNumber(number), root: TreeRoot([7; 32]) }
    }

    fn complete(number: u64) -> Register {
        Register::Complete { position: at(number), label: Label::Stable }
    }

    #[test]
    fn a_way_back_that_was_taken_back_is_none() {
        let core = complete(5);
        let mut kept = local_register(Some(&complete(6)), false);
        // No operator went back: the register is about what was committed.
        assert_eq!(mend_way_back(&kept, at(5), Some(&core)), None);
        set_went_back(&mut kept);
        assert_eq!(mend_way_back(&kept, at(6), Some(&core)), None);
        let mended = mend_way_back(&kept, at(5), Some(&core)).unwrap();
        assert_eq!(mended, local_register(Some(&core), false));
        assert!(!went_back(&mended));
        // What else is remembered stays.
        set_foreign(&mut kept);
        kept[LOST_POWER_AT] = 1;
        let mended = mend_way_back(&kept, at(5), Some(&core)).unwrap();
        assert!(has_foreign(&mended) && mended[LOST_POWER_AT] == 1 && !went_back(&mended));
        assert_eq!(closed_of(&mended).map(|it| it.position), Some(at(5)));
    }

    #[test]
    fn a_tree_that_leaves_a_way_back_has_left_it_or_is_what_it_was() {
        let mut kept = local_register(Some(&complete(9)), false);
        set_leaves_way_back(&mut kept);
        assert!(went_back(&kept) && leaves_way_back(&kept));
        let there = mend_way_back(&kept, at(9), Some(&complete(9))).unwrap();
        assert!(!went_back(&there));
        assert_eq!(closed_of(&there).map(|it| it.position), Some(at(9)));
        let back = mend_way_back(&kept, at(7), Some(&complete(9))).unwrap();
        assert!(went_back(&back) && !leaves_way_back(&back));
        assert_eq!(closed_of(&back).map(|it| it.position), Some(at(7)));
        // Whoever serves what was gone back to is on no way.
        kept[REGISTER_LEN - 1] = 1;
        assert_eq!(mend_way_back(&kept, at(7), None), None);
    }

    #[test]
    fn behind_a_way_back_that_was_taken_back_may_be_another_one() {
        let mut kept = local_register(Some(&complete(7)), false);
        set_went_back(&mut kept);
        for core in [Some(complete(5)), Some(Register::Open), None] {
            let mended = mend_way_back(&kept, at(6), core.as_ref()).unwrap();
            assert!(went_back(&mended));
            assert_eq!(closed_of(&mended).map(|it| it.position), Some(at(6)));
        }
    }
}
