import random

h.opt_go()
random.seed(1)
model = bytearray(2 * 1024 * 1024)
for i in range(300):
    length = random.choice([1, 3, 511, 512, 513, 4096, 5000, 65536, 300000])
    offset = random.randrange(0, len(model) - length)
    if random.random() < 0.5:
        data = random.randbytes(length)
        h.pwrite(data, offset)
        model[offset:offset + length] = data
    else:
        assert h.pread(length, offset) == bytes(model[offset:offset + length]), (offset, length)
for offset in range(0, len(model), 1024 * 1024):
    assert h.pread(1024 * 1024, offset) == bytes(model[offset:offset + 1024 * 1024])
# The last byte, and the largest request that any server takes [NBD proto "Size constraints"].
h.pwrite(b"z", h.get_size() - 1)
assert h.pread(1, h.get_size() - 1) == b"z"
big = random.randbytes(32 * 1024 * 1024)
h.pwrite(big, 4096)
assert h.pread(len(big), 4096) == big
h.shutdown()
