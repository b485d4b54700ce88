h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.opt_go()
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
MIB = 1024 * 1024
HOLE_ZERO = nbd.STATE_HOLE | nbd.STATE_ZERO


def status(offset, length, flags=0):
    found = []

    def extent(name, start, entries, error):
        assert name == nbd.CONTEXT_BASE_ALLOCATION
        assert start == offset
        found.extend(zip(entries[::2], entries[1::2]))
        return 0

    h.block_status(length, offset, extent, flags)
    return found


def merged(offset, length):
    out = []
    end = offset + length
    while offset < end:
        for size, kind in status(offset, end - offset):
            size = min(size, end - offset)
            if out and out[-1][1] == kind:
                out[-1] = (out[-1][0] + size, kind)
            else:
                out.append((size, kind))
            offset += size
    return out


assert merged(0, h.get_size()) == [(h.get_size(), HOLE_ZERO)]
h.pwrite(b"d" * MIB, 4 * MIB)
assert merged(0, 8 * MIB) == [(4 * MIB, HOLE_ZERO), (MIB, 0), (3 * MIB, HOLE_ZERO)]
one = status(0, 8 * MIB, nbd.CMD_FLAG_REQ_ONE)
assert len(one) == 1 and one[0][0] <= 8 * MIB, one
h.trim(MIB, 4 * MIB)
assert merged(0, 8 * MIB) == [(8 * MIB, HOLE_ZERO)]
# A lone byte of it.
assert status(4 * MIB + 17, 1)[0][1] == HOLE_ZERO
h.shutdown()
