import { performance } from 'node:perf_hooks';
import { Histogram } from './histogram.ts';

/** What a load measured. */
export interface LoadResult {
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly latencyUs: { readonly p50: number; readonly p99: number; readonly p999: number };
  /** Of one core, this process alone. */
  readonly cpuPercent: number;
  readonly seconds: number;
}

/** Counts finished operations between the end of the warm-up and the end of the run. */
export class Meter {
  readonly #warmupUs: number;
  readonly #runUs: number;
  readonly #histogram = new Histogram();
  #measureFrom = 0;
  #end = 0;
  #measuring = false;
  #operations = 0;
  #bytes = 0;
  #cpu: NodeJS.CpuUsage = { user: 0, system: 0 };
  #cpuPercent = 0;
  #seconds = 0;

  constructor(warmupSeconds: number, seconds: number) {
    this.#warmupUs = warmupSeconds * 1e6;
    this.#runUs = seconds * 1e6;
  }

  nowUs(): number {
    return performance.now() * 1000;
  }

  start(): number {
    const now = this.nowUs();
    this.#measureFrom = now + this.#warmupUs;
    this.#end = this.#measureFrom + this.#runUs;
    return now;
  }

  /** Called between batches; switches from warm-up to measuring, and closes the books at the end. */
  over(nowUs: number): boolean {
    if (!this.#measuring && nowUs >= this.#measureFrom) {
      this.#measuring = true;
      this.#measureFrom = nowUs;
      this.#end = nowUs + this.#runUs;
      this.#operations = 0;
      this.#bytes = 0;
      this.#histogram.clear();
      this.#cpu = process.cpuUsage();
    }
    if (!this.#measuring || nowUs < this.#end) return false;
    const cpu = process.cpuUsage(this.#cpu);
    this.#seconds = (nowUs - this.#measureFrom) / 1e6;
    this.#cpuPercent = (cpu.user + cpu.system) / 1e4 / this.#seconds;
    return true;
  }

  done(latencyUs: number, bytes: number): void {
    this.#operations += 1;
    this.#bytes += bytes;
    this.#histogram.add(latencyUs);
  }

  result(): LoadResult {
    return {
      operationsPerSecond: this.#operations / this.#seconds,
      bytesPerSecond: this.#bytes / this.#seconds,
      latencyUs: {
        p50: this.#histogram.quantile(0.5),
        p99: this.#histogram.quantile(0.99),
        p999: this.#histogram.quantile(0.999),
      },
      cpuPercent: this.#cpuPercent,
      seconds: this.#seconds,
    };
  }
}
