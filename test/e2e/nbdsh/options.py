# Still in the option phase.
names = []
h.opt_list(lambda name, description: names.append(name) or 0)
assert names == [""], names
h.opt_info()
assert h.get_size() == 64 * 1024 * 1024
contexts = []
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
assert contexts == [nbd.CONTEXT_BASE_ALLOCATION], contexts
h.set_export_name("there is no such export")
try:
    h.opt_info()
    raise AssertionError("an unknown export was described")
except nbd.Error:
    pass
h.set_export_name("")
h.opt_go()
assert h.pread(512, 0) == bytes(512)
h.shutdown()
# A client of old: no structured replies, and requests all the same.
old = nbd.NBD()
old.set_request_structured_replies(False)
old.connect_uri(uri)
assert not old.get_structured_replies_negotiated()
old.pwrite(b"simple" * 100, 7)
assert old.pread(600, 7) == b"simple" * 100
old.set_strict_mode(0)
try:
    old.pread(512, old.get_size())
    raise AssertionError("read beyond the end")
except nbd.Error as error:
    assert error.errno == "EINVAL"
assert old.pread(6, 7) == b"simple"
old.shutdown()
# Without fixed newstyle's GO: NBD_OPT_EXPORT_NAME, with and without its zeroes.
for flags in [0, nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE]:
    ancient = nbd.NBD()
    ancient.set_handshake_flags(flags)
    ancient.connect_uri(uri)
    assert ancient.pread(6, 7) == b"simple"
    ancient.shutdown()
