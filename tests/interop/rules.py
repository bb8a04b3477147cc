"""Rules of the NBD protocol, each tried with libnbd, whose own checks are off.

    python3 rules.py RULE SOCKET EXPORT

A rule that holds ends with exit code 0. The export holds at least 48 MiB and may be overwritten.
"""

import errno
import sys

import nbd

SOCKET, EXPORT = sys.argv[2:]
MAX_PAYLOAD = 32 << 20
CONTEXT = "base:allocation"


def negotiating():
    """A connection that still talks about options."""
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_strict_mode(0)
    h.set_export_name(EXPORT)
    h.connect_unix(SOCKET)
    return h


def opened(structured=True, context=True):
    """A connection that takes requests."""
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_export_name(EXPORT)
    h.set_request_structured_replies(structured)
    if context:
        h.add_meta_context(CONTEXT)
    h.connect_unix(SOCKET)
    return h


def refused(call, expected):
    """Calls, and checks that the server answers with the error."""
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == expected, f"{error} instead of {errno.errorcode[expected]}"
        return
    raise AssertionError(f"not refused with {errno.errorcode[expected]}")


def extents(h, count, offset, flags=0):
    """The extents of `base:allocation`, as pairs of length and flags."""
    found = []

    def note(context, _offset, entries, _error):
        assert context == CONTEXT
        found.extend(zip(entries[0::2], entries[1::2]))

    h.block_status(count, offset, note, flags)
    return found


def export_name_without_fixed_newstyle_opens_the_export():
    h = nbd.NBD()
    h.set_handshake_flags(0)
    h.set_export_name(EXPORT)
    h.connect_unix(SOCKET)
    assert h.get_protocol() == "newstyle", h.get_protocol()
    h.pwrite(b"plain", 3)
    assert h.pread(5, 3) == b"plain"
    h.shutdown()


def abort_is_acknowledged():
    negotiating().opt_abort()
    opened().shutdown()


def info_and_go_say_the_same():
    h = negotiating()
    h.opt_info()
    told = (h.get_size(), h.can_multi_conn(), h.can_fua(), h.get_block_size(nbd.SIZE_MAXIMUM))
    h.opt_go()
    again = (h.get_size(), h.can_multi_conn(), h.can_fua(), h.get_block_size(nbd.SIZE_MAXIMUM))
    assert told == again, (told, again)
    h.shutdown()


def an_unknown_export_leaves_the_negotiation_going():
    h = negotiating()
    for name in ["no such export", "../../etc/shadow", "x" * 4096]:
        h.set_export_name(name)
        refused(h.opt_info, errno.ENOENT)
        refused(h.opt_go, errno.ENOENT)
    h.set_export_name(EXPORT)
    h.opt_go()
    assert h.pread(1, 0)
    h.shutdown()


def the_list_names_the_export():
    h = negotiating()
    names = []
    assert h.opt_list(lambda name, _description: names.append(name)) == 1
    assert names == [EXPORT], names
    h.opt_abort()


def contexts_are_listed_and_unknown_ones_ignored():
    h = negotiating()

    def listed(*queries):
        found = []
        h.clear_meta_contexts()
        for query in queries:
            h.add_meta_context(query)
        assert h.opt_list_meta_context(found.append) == len(found)
        return found

    assert CONTEXT in listed()
    assert CONTEXT in listed("base:")
    assert listed(CONTEXT, "x-else:where") == [CONTEXT]
    assert listed("base:none", "x-else:where") == []
    h.add_meta_context(CONTEXT)
    h.opt_go()
    assert h.can_meta_context(CONTEXT) and not h.can_meta_context("base:none")
    assert extents(h, 4096, 0)
    h.shutdown()


def reads_work_without_structured_replies():
    h = opened(structured=False, context=False)
    assert not h.get_structured_replies_negotiated()
    assert not h.can_df()
    h.pwrite(b"simple", 511)
    assert h.pread(6, 511) == b"simple"
    refused(lambda: h.pread(2, h.get_size() - 1), errno.EINVAL)
    assert h.pread(6, 511) == b"simple"
    h.shutdown()


def a_read_that_must_not_be_cut_is_one_chunk():
    h = opened()
    h.zero(1 << 20, 0)
    h.pwrite(b"\x55" * 4096, 65536)
    chunks = []

    def note(_buffer, offset, _status, _error):
        chunks.append(offset)

    h.pread_structured(1 << 20, 0, note, nbd.CMD_FLAG_DF)
    assert chunks == [0], chunks
    h.shutdown()


def beyond_the_end_is_refused_with_the_error_of_its_command():
    h = opened()
    size = h.get_size()
    for offset, count in [(size - 1, 2), (size, 1), ((1 << 63) - 4096, 4096)]:
        refused(lambda: h.pwrite(b"x" * count, offset), errno.ENOSPC)
        refused(lambda: h.zero(count, offset), errno.ENOSPC)
        refused(lambda: h.pread(count, offset), errno.EINVAL)
        refused(lambda: h.trim(count, offset), errno.EINVAL)
        refused(lambda: h.block_status(count, offset, lambda *_: 0), errno.EINVAL)
    h.pwrite(b"last", size - 4)
    assert h.pread(4, size - 4) == b"last"
    h.shutdown()


def unknown_flags_are_refused_and_the_connection_stays_in_step():
    h = opened()
    unknown = 1 << 14
    refused(lambda: h.pwrite(b"payload", 0, unknown), errno.EINVAL)
    refused(lambda: h.pread(512, 0, unknown), errno.EINVAL)
    refused(lambda: h.trim(512, 0, unknown), errno.EINVAL)
    refused(lambda: h.flush(unknown), errno.EINVAL)
    h.pwrite(b"in step", 0)
    assert h.pread(7, 0) == b"in step"
    h.shutdown()


def a_request_of_no_bytes_succeeds_and_changes_nothing():
    h = opened()
    h.pwrite(b"kept", 0)
    h.pwrite(b"", 0)
    h.trim(0, 0)
    h.zero(0, 0)
    assert h.pread(0, 0) == b""
    assert h.pread(4, 0) == b"kept"
    h.shutdown()


def a_read_of_more_than_the_maximum_is_refused():
    h = opened()
    refused(lambda: h.pread(MAX_PAYLOAD + 1, 0), errno.EINVAL)
    assert len(h.pread(MAX_PAYLOAD, 0)) == MAX_PAYLOAD
    h.shutdown()


def a_write_of_the_maximum_is_taken():
    h = opened()
    pattern = bytes(range(256)) * (MAX_PAYLOAD // 256)
    h.pwrite(pattern, 1)
    assert h.pread(MAX_PAYLOAD, 1) == pattern
    h.shutdown()


def forced_unit_access_is_taken_on_every_command():
    h = opened()
    fua = nbd.CMD_FLAG_FUA
    h.pwrite(b"stable" * 100, 1000, fua)
    assert h.pread(600, 1000, fua) == b"stable" * 100
    h.zero(300, 1000, fua)
    h.trim(300, 1300, fua)
    h.flush(fua)
    assert h.pread(600, 1000) == bytes(600)
    h.shutdown()


def zeroed_ranges_read_zero_and_their_neighbours_are_kept():
    h = opened()
    for flags in [0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA]:
        h.pwrite(b"\xaa" * 200_000, 0)
        h.zero(131_001, 4095, flags)
        expected = b"\xaa" * 4095 + bytes(131_001) + b"\xaa" * (200_000 - 135_096)
        assert h.pread(200_000, 0) == expected, flags
    h.shutdown()


def more_is_zeroed_at_once_than_a_payload_may_hold():
    h = opened()
    count = min(h.get_size() - 7, 2 * MAX_PAYLOAD)
    for offset in [7, count - 9]:
        h.pwrite(b"\xbb" * 16, offset)
    h.zero(count, 7)
    assert h.pread(9, 7) == bytes(9)
    assert h.pread(16, count - 9) == bytes(16)
    h.shutdown()


def fast_zero_is_done_or_changes_nothing():
    h = opened()
    if not h.can_fast_zero():
        return
    h.pwrite(b"\xcc" * 65536, 0)
    try:
        h.zero(65536, 0, nbd.CMD_FLAG_FAST_ZERO)
        expected = bytes(65536)
    except nbd.Error as error:
        assert error.errnum == errno.ENOTSUP, error
        expected = b"\xcc" * 65536
    assert h.pread(65536, 0) == expected
    h.shutdown()


def trimmed_ranges_read_zero():
    h = opened()
    h.pwrite(b"\xdd" * 200_000, 0)
    h.trim(131_001, 4095)
    expected = b"\xdd" * 4095 + bytes(131_001) + b"\xdd" * (200_000 - 135_096)
    assert h.pread(200_000, 0) == expected
    h.shutdown()


def the_block_status_covers_what_was_asked_and_calls_only_zeroes_zero():
    h = opened()
    h.trim(4 << 20, 0)
    h.pwrite(b"\xee" * 70_000, 1 << 20)
    found = extents(h, 4 << 20, 0)
    assert found and all(count > 0 for count, _ in found), found
    at = 0
    for count, flags in found:
        end = min(at + count, 4 << 20)
        if flags & nbd.STATE_ZERO:
            assert h.pread(end - at, at) == bytes(end - at), (at, count)
        at = end
    one = extents(h, 4 << 20, 0, nbd.CMD_FLAG_REQ_ONE)
    assert len(one) == 1 and one[0][0] <= 4 << 20, one
    h.shutdown()


def a_block_status_without_a_context_is_refused():
    h = opened(context=False)
    refused(lambda: h.block_status(4096, 0, lambda *_: 0), errno.EINVAL)
    assert h.pread(1, 0)
    h.shutdown()


def reading_ahead_changes_nothing():
    h = opened()
    h.pwrite(b"cached", 100)
    h.cache(1 << 20, 0)
    refused(lambda: h.cache(2, h.get_size() - 1), errno.EINVAL)
    assert h.pread(6, 100) == b"cached"
    h.shutdown()


def what_one_connection_wrote_the_other_reads_and_flushes():
    one, other = opened(), opened()
    assert one.can_multi_conn()
    for turn in range(64):
        one.pwrite(bytes([turn]) * 1000, turn * 700)
        assert other.pread(1000, turn * 700) == bytes([turn]) * 1000
        other.flush()
        one, other = other, one
    one.shutdown()
    other.shutdown()


def two_writers_of_one_sector_keep_each_others_bytes():
    one, other = opened(), opened()
    one.pwrite(bytes(512), 0)
    for turn in range(100):
        buffers = [bytes([turn + 1 + side]) * 256 for side in [0, 1]]
        cookies = [
            (h, h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(buffer)), side * 256))
            for side, (h, buffer) in enumerate(zip([one, other], buffers))
        ]
        for h, cookie in cookies:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
        assert one.pread(512, 0) == b"".join(buffers), turn
    one.shutdown()
    other.shutdown()


def sixty_four_requests_in_flight_are_all_answered():
    h = opened()
    count, length = 2048, 3000
    waiting = {}
    for turn in range(count):
        buffer = nbd.Buffer.from_bytearray(bytearray([turn % 251]) * length)
        waiting[h.aio_pwrite(buffer, turn * length)] = turn
        while len(waiting) >= 64:
            h.poll(-1)
            for cookie in [c for c in waiting if h.aio_command_completed(c)]:
                del waiting[cookie]
    for cookie in waiting:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    for turn in range(count):
        assert h.pread(length, turn * length) == bytes([turn % 251]) * length, turn
    h.shutdown()


def a_disconnect_finishes_what_was_asked_before_it():
    h = opened()
    buffer = nbd.Buffer.from_bytearray(bytearray(b"\x77") * (1 << 20))
    cookies = [h.aio_pwrite(buffer, part << 20) for part in range(16)]
    h.aio_disconnect()
    while not (h.aio_is_closed() or h.aio_is_dead()):
        h.poll(-1)
    assert all(h.aio_command_completed(cookie) for cookie in cookies)
    after = opened()
    for part in range(16):
        assert after.pread(1 << 20, part << 20) == b"\x77" * (1 << 20), part
    after.shutdown()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
