h.opt_go()
h.set_strict_mode(0)
size = h.get_size()


def refused(codes, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errno in codes, (error.errno, codes, arguments)
    else:
        raise AssertionError("accepted: %r" % (arguments,))
    # One bad request costs that request only.
    assert h.aio_is_ready()
    h.pread(512, 0)


# [NBD proto "Error values"]: EINVAL beyond the end for reads, ENOSPC for writes where the server likes.
refused(["EINVAL"], h.pread, 512, size)
refused(["EINVAL"], h.pread, 1024, size - 512)
refused(["EINVAL"], h.pread, 512, 2**63)
refused(["ENOSPC", "EINVAL"], h.pwrite, b"x" * 512, size)
refused(["ENOSPC", "EINVAL"], h.pwrite, b"x" * 1024, size - 512)
refused(["ENOSPC", "EINVAL"], h.zero, 4096, size - 512)
refused(["EINVAL"], h.trim, 4096, size - 512)
refused(["EINVAL"], h.cache, 4096, size)
# Flags that a command does not have.
refused(["EINVAL"], h.pwrite, b"x" * 512, 0, nbd.CMD_FLAG_DF)
refused(["EINVAL"], h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
refused(["EINVAL"], h.pread, 512, 0, 1 << 9)
# Block status without a negotiated context.
refused(["EINVAL"], h.block_status, 4096, 0, lambda *arguments: 0)
# Nothing of the refused writes is there.
assert h.pread(512, size - 512) == bytes(512)
h.shutdown()
