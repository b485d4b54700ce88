/**
 * Holdfast as a library: a server inside a program of yours, disks of your own behind it, and a client. What is
 * exported here and in `holdfast/conformance` is the public interface; everything else may change between two
 * versions.
 */
export { ConfigError, ProtocolError, UsageError } from './base/errors.ts';
export { parseSize } from './base/units.ts';
export * as awaitable from './block/await.ts';
export { checkIo } from './block/check.ts';
export type { BlockDevice, DeviceInfo } from './block/device.ts';
export { BlockError, type BlockErrorCode } from './block/errors.ts';
export { EXTENT, ExtentList } from './block/extents.ts';
export { FLAG, Io, type IoOwner, IoPool, OP, type Op } from './block/io.ts';
export { Region, Segments } from './block/memory.ts';
export { CACHE_MODES, type CacheMode, type SyncErrorPolicy } from './durability/modes.ts';
export { connectNbd, listNbdExports, type NbdClient } from './protocols/nbd/client.ts';
export { formatNbdUri, parseNbdUri, type NbdUri } from './protocols/nbd/uri.ts';
export { connectVhostUserBlk, type VhostUserBlkDevice } from './protocols/vhost-user/blk-client.ts';
export { openReactor } from './reactor/open.ts';
export type { Reactor, SocketAddress, TlsSettings } from './reactor/reactor.ts';
export type {
  DiskConfig,
  DiskCounters,
  ListenConfig,
  NbdListen,
  Served,
  ServerConfig,
  VhostUserBlkListen,
} from './server/config.ts';
export { type LogLevel, type Server, startServer } from './server/server.ts';
export { openMemoryStore } from './stores/memory/memory-store.ts';
