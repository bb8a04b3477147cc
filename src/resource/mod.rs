//! One resource on one node: `promotion` and `replica` around one superblock.
