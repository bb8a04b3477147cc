//! nbdinfo and nbdcopy, of libnbd.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::server::{Server, noise, text};
use crate::real::pair::RESOURCE;
use crate::real::process::run_well;

/// It ends within a sector.
pub(crate) const ODD_SIZE: u64 = (64 << 20) + 511;
const HOLE_AND_ZERO: u64 = 3;

/// Size, flags and contexts, in each of the ways that nbdinfo shows them.
pub(crate) fn nbdinfo_shows_what_is_true(server: &Server) {
    let size = server.size;
    assert_eq!(run_well("nbdinfo", &["--size", &server.uri()]).trim(), size.to_string());
    for (list, uri) in [(false, server.uri()), (true, server.uri())] {
        let words = if list { vec!["--list", "--json", &uri] } else { vec!["--json", &uri] };
        let whole: Value = serde_json::from_str(&run_well("nbdinfo", &words)).unwrap();
        assert_eq!(whole["protocol"], "newstyle-fixed", "{whole}");
        assert_eq!(whole["structured"], true, "{whole}");
        let exports = whole["exports"].as_array().unwrap();
        assert_eq!(exports.len(), 1, "{whole}");
        let export = &exports[0];
        assert_eq!(export["export-size"], size, "{export}");
        let contexts = export["contexts"].as_array().unwrap();
        assert!(contexts.contains(&json!("base:allocation")), "{export}");
        let claims = ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df"];
        for claim in claims {
            assert_eq!(export[claim], true, "{claim} of {export}");
        }
        assert_eq!(export["is_read_only"], false, "{export}");
        if server.is_pair() {
            assert_eq!(export["export-name"], RESOURCE, "{export}");
            assert_eq!(export["can_cache"], true, "{export}");
            assert_eq!(export["can_fast_zero"], true, "{export}");
            assert_eq!(export["block_size_minimum"], 1, "{export}");
            assert_eq!(export["block_size_preferred"], 4096, "{export}");
            assert_eq!(export["block_size_maximum"], 32 << 20, "{export}");
        }
    }
}

/// The map covers everything, and what it calls zero reads zero.
pub(crate) fn what_the_map_calls_zero_reads_zero(server: &Server) {
    let mut client = server.connect();
    for (seed, start) in [(1, 0), (2, 8 << 20), (3, (24 << 20) - 512), (4, server.size - 511)] {
        client.write(start, &noise(seed, 511)).unwrap();
    }
    client.write(16 << 20, &noise(5, 1 << 20)).unwrap();
    client.flush().unwrap();
    let whole = client.read_all().unwrap();
    let map: Value =
        serde_json::from_str(&run_well("nbdinfo", &["--map", "--json", &server.uri()])).unwrap();
    let mut at = 0;
    let mut holes = 0;
    for extent in map.as_array().unwrap() {
        let [start, len, kind] =
            ["offset", "length", "type"].map(|key| extent[key].as_u64().unwrap());
        assert_eq!(start, at, "{map}");
        at += len;
        let range = usize::try_from(start).unwrap()..usize::try_from(at).unwrap();
        if kind & HOLE_AND_ZERO != 0 {
            assert!(whole[range].iter().all(|byte| *byte == 0), "{extent} does not read zero");
            holes += len;
        }
    }
    assert_eq!(at, server.size, "{map}");
    assert!(holes > server.size / 2, "only {holes} bytes are called zero: {map}");
}

/// In over several connections, and out again.
pub(crate) fn nbdcopy_brings_back_what_it_took(server: &Server) {
    let (random, back) = (server.file("random"), server.file("back"));
    fs::write(&random, noise(6, server.size)).unwrap();
    copy(&["--connections=4", "--flush", text(&random), &server.uri()]);
    copy(&["--connections=4", &server.uri(), text(&back)]);
    let expected = fs::read(&random).unwrap();
    assert!(fs::read(&back).unwrap() == expected, "nbdcopy brought back something else");
    assert!(server.image_at_rest() == expected, "the disk holds something else");
}

/// A sparse file, first onto zeroes, then another one over what is there.
pub(crate) fn nbdcopy_keeps_holes(server: &Server) {
    let [first, second] = ["first", "second"].map(|name| server.file(name));
    sparse(&first, server.size, 7);
    sparse(&second, server.size, 8);
    let uri = server.uri();
    copy(&["--connections=4", "--destination-is-zero", "--flush", text(&first), &uri]);
    assert!(server.image_at_rest() == fs::read(&first).unwrap(), "onto zeroes");
    let allocated = server.allocated_bytes();
    assert!(allocated < server.size / 2, "{allocated} bytes are allocated");
    copy(&["--connections=4", "--flush", text(&second), &uri]);
    assert!(server.image_at_rest() == fs::read(&second).unwrap(), "over what was there");
    let allocated = server.allocated_bytes();
    assert!(allocated < server.size / 2, "{allocated} bytes are allocated after zeroing");
}

fn copy(words: &[&str]) {
    run_well("nbdcopy", words);
}

/// A file of which one part in 16 is there, in places that the seed decides, and its tail.
fn sparse(path: &Path, size: u64, seed: u64) {
    const PART: u64 = 256 << 10;
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..size / PART / 16 {
        let part = rng.u64(..size / PART);
        file.write_all_at(&noise(rng.u64(..), PART), part * PART).unwrap();
    }
    file.write_all_at(&noise(seed, 511), size - 511).unwrap();
}
