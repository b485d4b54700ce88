import { after } from 'node:test';
import { conformance, type ConformanceTarget } from '../../block/conformance.ts';
import { MiB } from '../../base/units.ts';
import { openFileStore, type FileStoreOptions } from './open.ts';
import {
  openFaultyReactor,
  REACTORS,
  storeOptions,
  TestDirectory,
  type FaultyReactor,
} from './testing.ts';

const SIZE_BYTES = 8 * MiB;
const EIO = -5;

const VARIANTS: Readonly<Record<string, Partial<FileStoreOptions>>> = {
  buffered: {},
  'buffered, blocks of 512 bytes': { blockBytes: 512 },
  direct: { direct: true },
};

for (const kind of REACTORS) {
  let reactor: Promise<FaultyReactor> | null = null;
  const reactorOf = (): Promise<FaultyReactor> => (reactor ??= openFaultyReactor(kind));
  after(async () => {
    await (await reactorOf()).close();
  });
  for (const [variant, change] of Object.entries(VARIANTS)) {
    const open = async (readOnly: boolean): Promise<ConformanceTarget> => {
      const real = await reactorOf();
      const directory = new TestDirectory();
      const path = directory.image(SIZE_BYTES);
      const device = await openFileStore(real, storeOptions(path, [], { ...change, readOnly }));
      return {
        device,
        failNextSync: () => {
          let armed = true;
          real.files.fault = ({ kind: request, dsync }) => {
            if (!armed || !(request === 'datasync' || dsync)) return null;
            armed = false;
            return EIO;
          };
        },
        dispose: async () => {
          real.files.fault = null;
          directory.remove();
        },
      };
    };
    conformance(`file store, ${kind}, ${variant}`, () => open(false), {
      openReadOnly: () => open(true),
      steps: 120,
      canFailSync: true,
    });
  }
}
