//! qemu-img, qemu-io and qemu-nbd.

use std::fs;

use super::server::{Server, noise, text};
use crate::real::process::run_well;

/// Whole sectors, as `qemu-img convert` rounds up to, and an odd number of them.
pub(crate) const SECTORS_SIZE: u64 = (64 << 20) + 1536;

/// In and out, and compared by QEMU itself.
pub(crate) fn qemu_img_finds_the_images_identical(server: &Server) {
    let (random, back) = (server.file("random"), server.file("back"));
    fs::write(&random, noise(9, server.size)).unwrap();
    let uri = server.uri();
    let raw = ["-f", "raw", "-O", "raw"];
    run_well("qemu-img", &[&["convert", "-n"], &raw[..], &[text(&random), &uri]].concat());
    compare(text(&random), &uri);
    run_well("qemu-img", &[&["convert"], &raw[..], &[&uri, text(&back)]].concat());
    compare(text(&back), &uri);
    assert!(server.image_at_rest() == fs::read(&random).unwrap(), "the disk holds something else");
}

fn compare(one: &str, other: &str) {
    let said = run_well("qemu-img", &["compare", "-f", "raw", "-F", "raw", one, other]);
    assert!(said.contains("identical"), "{said}");
}

/// Patterns are where they were put: aligned, of 1, 511 and 513 bytes, and in the tail; what was
/// trimmed or zeroed reads zero, and its neighbours are untouched.
pub(crate) fn qemu_io_finds_its_patterns(server: &Server) {
    let tail = server.size - 511;
    let write = |pattern: u8, start: u64, len: u64| format!("write -P {pattern} {start} {len}");
    let read = |pattern: u8, start: u64, len: u64| format!("read -P {pattern} {start} {len}");
    let mut commands = vec![write(0xa5, 0, 1 << 20)];
    for (pattern, start, len) in [(1, 4097, 1), (2, 8191, 511), (3, 16_383, 513), (4, tail, 511)] {
        commands.extend([write(pattern, start, len), read(pattern, start, len)]);
    }
    commands.extend([
        // Around what was written, nothing moved.
        read(0xa5, 0, 4097),
        read(0xa5, 4098, 4093),
        read(0xa5, 8702, 7681),
        read(0xa5, 16_896, 48_640),
        // Zeroed, with and without giving the space back, and trimmed.
        "write -z 65536 65536".to_owned(),
        "write -z -u 131072 65536".to_owned(),
        "write -z -u 200001 511".to_owned(),
        "discard 262144 65536".to_owned(),
        "flush".to_owned(),
        read(0, 65_536, 131_072),
        read(0xa5, 196_608, 3393),
        read(0, 200_001, 511),
        read(0xa5, 200_512, 61_632),
        read(0, 262_144, 65_536),
        read(0xa5, 327_680, (1 << 20) - 327_680),
        // Stable when answered.
        "write -f -P 6 400000 4096".to_owned(),
        read(6, 400_000, 4096),
        read(0, 1 << 20, 1 << 20),
    ]);
    let uri = server.uri();
    let mut words = vec!["-f", "raw"];
    words.extend(commands.iter().flat_map(|command| ["-c", command]));
    words.push(&uri);
    // A pattern that does not match is only printed.
    let said = run_well("qemu-io", &words);
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    let image = server.image_at_rest();
    let at = |start: u64| image[usize::try_from(start).unwrap()];
    assert_eq!([at(4097), at(8191), at(tail), at(65_536), at(262_144)], [1, 2, 4, 0, 0]);
}

/// `qemu-nbd --list` and `qemu-img map` agree with the size.
pub(crate) fn qemu_lists_and_maps_the_export(server: &Server) {
    server.connect().write(1 << 20, &noise(10, 1 << 20)).unwrap();
    let listed = run_well("qemu-nbd", &["--list", "-k", text(server.socket())]);
    assert!(listed.contains(&server.size.to_string()), "{listed}");
    assert!(listed.contains("base:allocation"), "{listed}");
    let uri = server.uri();
    let mapped = run_well("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
    let runs: Vec<serde_json::Value> = serde_json::from_str(&mapped).unwrap();
    let is_there = |run: &&serde_json::Value| run["data"] == true;
    let data: u64 = runs.iter().filter(is_there).map(|run| run["length"].as_u64().unwrap()).sum();
    assert_eq!(data, 1 << 20, "{mapped}");
}
