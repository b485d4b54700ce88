h.opt_go()
assert h.can_multi_conn()
others = []
for i in range(4):
    other = nbd.NBD()
    other.connect_uri(uri)
    others.append(other)
for i, other in enumerate(others):
    other.pwrite(bytes([i + 1]) * 4096, i * 4096)
# A flush on any connection covers what all have been told is written [NBD proto "Ordering"].
others[0].flush()
for reader in [h] + others:
    for i in range(4):
        assert reader.pread(4096, i * 4096) == bytes([i + 1]) * 4096
for other in others:
    other.shutdown()
h.shutdown()
