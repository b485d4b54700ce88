import type { ListenConfig } from './config.ts';
import type { Face, FaceContext } from './faces/face.ts';

/** The faces there are. Each is loaded when a server has a place for it. */
export const FACES: Readonly<
  Record<ListenConfig['protocol'], (context: FaceContext) => Promise<Face>>
> = {
  nbd: async (context) => new (await import('./faces/nbd.ts')).NbdFace(context),
  'vhost-user-blk': async (context) =>
    new (await import('./faces/vhost-user-blk.ts')).VhostUserBlkFace(context),
  fuse: async (context) => new (await import('./faces/fuse.ts')).FuseFace(context),
  iscsi: async (context) => new (await import('./faces/iscsi.ts')).IscsiFace(context),
};
