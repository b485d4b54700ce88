h.opt_go()
assert h.get_structured_replies_negotiated()
assert h.can_df()
data = bytes(range(256)) * 4096
h.pwrite(data, 512)


def gather(length, offset, flags=0):
    out = bytearray(b"?" * length)
    pieces = []

    def piece(buffer, start, kind, error):
        assert error.value == 0
        assert offset <= start and start + len(buffer) <= offset + length
        pieces.append((start, len(buffer), kind))
        out[start - offset:start - offset + len(buffer)] = (
            bytes(len(buffer)) if kind == nbd.READ_HOLE else buffer
        )
        return 0

    h.pread_structured(length, offset, piece, flags)
    return bytes(out), pieces


got, pieces = gather(len(data), 512)
assert got == data
assert sum(size for _, size, _ in pieces) == len(data), pieces
# DF: one piece or EOVERFLOW [NBD proto "NBD_CMD_FLAG_DF"]; 64 KiB must work.
got, pieces = gather(65536, 512, nbd.CMD_FLAG_DF)
assert got == data[:65536] and len(pieces) == 1
try:
    got, pieces = gather(len(data), 512, nbd.CMD_FLAG_DF)
    assert got == data and len(pieces) == 1
except nbd.Error as error:
    assert error.errno == "EOVERFLOW", error.errno
# Holes read as zeroes, sent as such or not.
got, pieces = gather(1024 * 1024, 16 * 1024 * 1024)
assert got == bytes(1024 * 1024)
h.shutdown()
