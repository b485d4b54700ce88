h.opt_go()
assert h.can_zero() and h.can_trim()
data = b"\xaa" * (1024 * 1024)
flags = [
    0,
    nbd.CMD_FLAG_NO_HOLE,
    nbd.CMD_FLAG_FUA,
    nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE,
]
for flag in flags:
    for offset, length in [(0, 4096), (4096, 65536), (100, 1000), (12345, 500000), (1000000, 48576)]:
        h.pwrite(data, 0)
        h.zero(length, offset, flag)
        got = h.pread(len(data), 0)
        assert got[offset:offset + length] == bytes(length), (flag, offset, length)
        assert got[:offset] == data[:offset], (flag, offset, length)
        assert got[offset + length:] == data[offset + length:], (flag, offset, length)
# Fast or not at all, and never anything in between.
h.pwrite(data, 0)
try:
    h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
    assert h.pread(65536, 65536) == bytes(65536)
except nbd.Error as error:
    assert error.errno == "EOPNOTSUPP", error.errno
    assert h.pread(65536, 65536) == data[65536:131072]
h.trim(65536, 131072)
h.pread(65536, 131072)
# Larger than any payload: zeroes carry none.
h.zero(h.get_size(), 0)
assert h.pread(1024 * 1024, 0) == bytes(1024 * 1024)
h.shutdown()
