h.opt_go()
assert h.can_fua() and h.can_flush()
h.set_strict_mode(0)
data = b"f" * 4096
h.pwrite(data, 0, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 0) == data
h.flush()
# After a flush: the case in which QEMU 11.1 forgets the sync.
h.pwrite(b"g" * 4096, 0, nbd.CMD_FLAG_FUA)
h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
h.zero(4096, 8192, nbd.CMD_FLAG_FUA)
h.cache(4096, 0, nbd.CMD_FLAG_FUA)
# [NBD proto "Transmission phase"]: a server that offers FUA takes it on every command, also where it means nothing.
assert h.pread(4096, 0, nbd.CMD_FLAG_FUA) == b"g" * 4096
h.flush(nbd.CMD_FLAG_FUA)
h.shutdown()
