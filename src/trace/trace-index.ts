import { assert } from '../base/assert.ts';
import { Column } from './columns.ts';
import { NEVER, type Mark, type Requests, type Trace, type TraceDisk } from './trace.ts';

/** A trace without its file: all of it can be sent to another thread, and its arrays are then shared. */
export type TraceIndex = Omit<Trace, 'path' | 'readData' | 'close'>;

interface RawMark {
  readonly kind: Mark['kind'];
  readonly text: string;
  readonly timeNs: number;
  /** How many other events stand before it in the file. */
  readonly place: number;
}

/** What one request is, as it was issued. */
export interface Issued {
  readonly op: number;
  readonly flags: number;
  readonly disk: number;
  readonly source: number;
  readonly offset: number;
  readonly length: number;
}

/**
 * Makes the index of a trace from its records in the order of the file. Issues and completions come in the order of
 * time; marks may come late. The caller has checked every field.
 */
export class IndexBuilder {
  readonly disks: TraceDisk[] = [];
  readonly #marks: RawMark[] = [];
  readonly #op = new Column(Uint8Array);
  readonly #flags = new Column(Uint8Array);
  readonly #disk = new Column(Uint16Array);
  readonly #source = new Column(Uint32Array);
  readonly #offset = new Column(Float64Array);
  readonly #length = new Column(Float64Array);
  readonly #failed = new Column(Uint8Array);
  readonly #dataAt = new Column(Float64Array);
  /** Events without marks: which request, and its issue or its completion (`ended`). */
  readonly #request = new Column(Uint32Array);
  readonly #ended = new Column(Uint8Array);
  readonly #time = new Column(Float64Array);
  /** 1: the request has completed. */
  readonly #done = new Column(Uint8Array);

  get requestCount(): number {
    return this.#op.count;
  }

  get markCount(): number {
    return this.#marks.length;
  }

  diskOf(request: number): number {
    return this.#disk.get(request);
  }

  isDone(request: number): boolean {
    return this.#done.get(request) === 1;
  }

  issue(request: Issued, timeNs: number, dataAt: number): void {
    this.#event(this.#op.count, 0, timeNs);
    this.#op.push(request.op);
    this.#flags.push(request.flags);
    this.#disk.push(request.disk);
    this.#source.push(request.source);
    this.#offset.push(request.offset);
    this.#length.push(request.length);
    this.#failed.push(0);
    this.#dataAt.push(dataAt);
    this.#done.push(0);
  }

  complete(request: number, failed: boolean, timeNs: number): void {
    assert(!this.isDone(request), 'a request completed twice');
    this.#event(request, 1, timeNs);
    this.#done.set(request, 1);
    this.#failed.set(request, failed ? 1 : 0);
  }

  mark(kind: Mark['kind'], text: string, timeNs: number): void {
    this.#marks.push({ kind, text, timeNs, place: this.#time.count });
  }

  /** The builder is not used afterwards. */
  finish(fingerprint: string, complete: boolean): TraceIndex {
    const marks = this.#marks.toSorted((a, b) => a.timeNs - b.timeNs || a.place - b.place);
    const events = this.#time.count + marks.length;
    const timeNs = new Float64Array(new SharedArrayBuffer(events * 8));
    const issued = new Int32Array(new SharedArrayBuffer(this.#op.count * 4));
    const done = new Int32Array(new SharedArrayBuffer(this.#op.count * 4)).fill(NEVER);
    const placed: Mark[] = [];
    let event = 0;
    let next = 0;
    for (let i = 0; i <= this.#time.count; i += 1) {
      const time = i < this.#time.count ? this.#time.get(i) : Infinity;
      for (let mark = marks[next]; mark !== undefined; mark = marks[next]) {
        if (mark.timeNs > time || (mark.timeNs === time && mark.place > i)) break;
        placed.push({ event, kind: mark.kind, text: mark.text });
        timeNs[event] = mark.timeNs;
        event += 1;
        next += 1;
      }
      if (i === this.#time.count) break;
      const array = this.#ended.get(i) === 1 ? done : issued;
      array[this.#request.get(i)] = event;
      timeNs[event] = time;
      event += 1;
    }
    const start = timeNs[0] ?? 0;
    for (let i = 0; i < events; i += 1) timeNs[i] = (timeNs[i] as number) - start;
    return {
      fingerprint,
      disks: this.disks,
      requests: this.#requests(issued, done),
      marks: placed,
      events,
      timeNs,
      complete,
    };
  }

  #event(request: number, ended: 0 | 1, timeNs: number): void {
    this.#request.push(request);
    this.#ended.push(ended);
    this.#time.push(timeNs);
  }

  #requests(issued: Int32Array, done: Int32Array): Requests {
    return {
      count: this.#op.count,
      op: this.#op.finish(),
      flags: this.#flags.finish(),
      disk: this.#disk.finish(),
      source: this.#source.finish(),
      offset: this.#offset.finish(),
      length: this.#length.finish(),
      issued,
      done,
      failed: this.#failed.finish(),
      dataAt: this.#dataAt.finish(),
    };
  }
}
