h.opt_go()
COUNT = 400
BLOCK = 4096
buffers = []
cookies = []
for i in range(COUNT):
    data = nbd.Buffer.from_bytearray(bytearray([i % 251]) * BLOCK)
    buffers.append(data)
    cookies.append(h.aio_pwrite(data, i * BLOCK))
while h.aio_in_flight() > 0:
    h.poll(-1)
for cookie in cookies:
    assert h.aio_command_completed(cookie)
reads = []
for i in reversed(range(COUNT)):
    buffer = nbd.Buffer(BLOCK)
    reads.append((i, buffer, h.aio_pread(buffer, i * BLOCK)))
    if i % 50 == 0:
        reads.append((None, None, h.aio_flush()))
while h.aio_in_flight() > 0:
    h.poll(-1)
for i, buffer, cookie in reads:
    assert h.aio_command_completed(cookie)
    if i is not None:
        assert buffer.to_bytearray() == bytearray([i % 251]) * BLOCK, i
h.shutdown()
