// For tests: typed arrays that tell of each load and store, so that a test can change memory, or end a device, between any
// two of them.

export interface TraceHooks {
  /** `byte` counts from the start of the buffer. Called before the load. */
  load?(byte: number, length: number): void;
  /** Called before the store; if it throws, nothing is stored. */
  store?(byte: number, length: number): void;
}

type Traceable = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;
type Key = 'Uint8Array' | 'Uint16Array' | 'Uint32Array' | 'Int32Array' | 'Float64Array';

const KEYS: readonly Key[] = [
  'Uint8Array',
  'Uint16Array',
  'Uint32Array',
  'Int32Array',
  'Float64Array',
];

interface Traced {
  readonly target: Traceable;
  readonly hooks: TraceHooks;
}

const traced = new WeakMap<object, Traced>();

/**
 * Runs `make`. Typed arrays that it creates over `buffer` call the hooks from then on, also when they are used with Atomics.
 * Not traced: DataViews, arrays made before, and what a method of an array (`fill`, `set`) does beyond its first store.
 */
export function traceArrays<T>(buffer: ArrayBufferLike, hooks: TraceHooks, make: () => T): T {
  traceAtomics();
  const scope = globalThis as unknown as Record<Key, unknown>;
  const originals = KEYS.map((key) => scope[key]);
  for (const key of KEYS) {
    scope[key] = new Proxy(scope[key] as new (...parameters: unknown[]) => Traceable, {
      construct(constructor, parameters) {
        const target = new constructor(...(parameters as unknown[]));
        return target.buffer === buffer ? trace(target, hooks) : target;
      },
    });
  }
  try {
    return make();
  } finally {
    for (const [i, key] of KEYS.entries()) scope[key] = originals[i];
  }
}

function trace(target: Traceable, hooks: TraceHooks): Traceable {
  const proxy = new Proxy(target, {
    get(array, key) {
      const index = indexOf(key);
      if (index !== null) {
        hooks.load?.(byteOf(array, index), array.BYTES_PER_ELEMENT);
        return array[index];
      }
      const value: unknown = Reflect.get(array, key, array);
      if (typeof value !== 'function') return value;
      return (...parameters: unknown[]): unknown => {
        if (key === 'fill' || key === 'set') hooks.store?.(array.byteOffset, array.byteLength);
        return Reflect.apply(value, array, parameters);
      };
    },
    set(array, key, value: number) {
      const index = indexOf(key);
      if (index === null) return false;
      hooks.store?.(byteOf(array, index), array.BYTES_PER_ELEMENT);
      array[index] = value;
      return true;
    },
  });
  traced.set(proxy, { target, hooks });
  return proxy;
}

function indexOf(key: string | symbol): number | null {
  return typeof key === 'string' && /^\d+$/.test(key) ? Number(key) : null;
}

function byteOf(array: Traceable, index: number): number {
  return array.byteOffset + index * array.BYTES_PER_ELEMENT;
}

let atomicsTraced = false;

/** Atomics refuse a Proxy: these look behind it. For the rest of the process, which is one test file's. */
function traceAtomics(): void {
  if (atomicsTraced) return;
  atomicsTraced = true;
  const load = Atomics.load.bind(Atomics) as (array: object, index: number) => number;
  const store = Atomics.store.bind(Atomics) as (
    array: object,
    index: number,
    value: number,
  ) => number;
  Object.assign(Atomics, {
    load(array: object, index: number): number {
      const found = traced.get(array);
      if (found === undefined) return load(array, index);
      found.hooks.load?.(byteOf(found.target, index), found.target.BYTES_PER_ELEMENT);
      return load(found.target, index);
    },
    store(array: object, index: number, value: number): number {
      const found = traced.get(array);
      if (found === undefined) return store(array, index, value);
      found.hooks.store?.(byteOf(found.target, index), found.target.BYTES_PER_ELEMENT);
      return store(found.target, index, value);
    },
  });
}
