assert h.is_read_only()
h.set_strict_mode(0)


def refused(call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errno == "EPERM", error.errno
    else:
        raise AssertionError("accepted: %r" % (arguments,))


before = h.pread(65536, 0)
refused(h.pwrite, b"x" * 4096, 0)
refused(h.zero, 4096, 0)
refused(h.trim, 4096, 0)
h.flush()
h.cache(4096, 0)
assert h.pread(65536, 0) == before
h.shutdown()
