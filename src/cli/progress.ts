/** How far long work has come, on stderr: one line that is rewritten on a terminal, else a line every few seconds. */
import { printableLine, truncate } from './text.ts';

export interface ProgressSink {
  /** Whether lines can be rewritten. */
  readonly terminal: boolean;
  /** Columns of the terminal. */
  readonly width: number;
  write(text: string): void;
  /** Milliseconds of a clock that does not jump. */
  now(): number;
}

const REWRITE_EVERY = 100;
const LINE_EVERY = 5000;
/** The rate is taken over the last seconds: the time left follows the work that is being done now. */
const WINDOW = 10_000;
/** What is done in less says nothing about the rate. */
const SETTLED = 500;

export class Progress {
  readonly #sink: ProgressSink | undefined;
  readonly #label: string;
  readonly #total: number | undefined;
  readonly #unit: 'bytes' | 'items';
  readonly #started: number;
  #samples: { at: number; done: number }[];
  #shown = Number.NEGATIVE_INFINITY;
  /** Whether the line stands on the terminal now. */
  #visible = false;
  #done = 0;

  /**
   * @param sink undefined to show nothing
   * @param of `total` in units, left out where it is not known
   */
  constructor(sink: ProgressSink | undefined, of: { label: string; total?: number; unit: 'bytes' | 'items' }) {
    this.#sink = sink;
    this.#label = printableLine(of.label);
    this.#total = of.total;
    this.#unit = of.unit;
    this.#started = sink?.now() ?? 0;
    this.#samples = [{ at: this.#started, done: 0 }];
    if (sink && !sink.terminal) this.#shown = this.#started;
  }

  /** @param done units since the start; cheap enough to be called for each piece of work */
  update(done: number): void {
    this.#done = done;
    const sink = this.#sink;
    if (!sink) return;
    const now = sink.now();
    if (now - this.#shown < (sink.terminal ? REWRITE_EVERY : LINE_EVERY)) return;
    this.#shown = now;
    this.#samples.push({ at: now, done });
    while (this.#samples.length > 2 && this.#samples[1]!.at <= now - WINDOW) this.#samples.shift();
    const line = this.#line(now);
    sink.write(sink.terminal ? `\r${truncate(line, sink.width - 1)}\x1b[K` : `${line}\n`);
    this.#visible = sink.terminal;
  }

  /** Takes the line off a terminal, up to the next update: for what else is written there. */
  hide(): void {
    if (this.#visible) this.#sink!.write('\r\x1b[K');
    this.#visible = false;
  }

  /** Takes the line off a terminal; elsewhere says what was done, if the work was long enough to be spoken of. */
  end(): void {
    const sink = this.#sink;
    if (!sink) return;
    if (sink.terminal) {
      this.hide();
      return;
    }
    const seconds = (sink.now() - this.#started) / 1000;
    if (seconds * 1000 < LINE_EVERY) return;
    sink.write(`${this.#label}: ${this.#amount(this.#done)} in ${duration(seconds)}\n`);
  }

  #line(now: number): string {
    const parts = [this.#amount(this.#done)];
    if (this.#total) parts[0] = `${Math.floor((100 * this.#done) / this.#total)}% of ${this.#amount(this.#total)}`;
    const first = this.#samples[0]!;
    const rate = now - first.at < SETTLED ? 0 : ((this.#done - first.done) * 1000) / (now - first.at);
    if (rate > 0) {
      parts.push(`${this.#amount(rate)}/s`);
      if (this.#total !== undefined) parts.push(`${duration((this.#total - this.#done) / rate)} left`);
    }
    return `${this.#label}: ${parts.join(', ')}`;
  }

  #amount(units: number): string {
    return this.#unit === 'bytes' ? byteSize(units) : count(units);
  }
}

/** "1.5 GiB": three digits and a binary unit. */
export function byteSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let size = bytes;
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit === 0 || size >= 99.95 ? Math.round(size) : size.toFixed(size >= 9.995 ? 1 : 2)} ${units[unit]}`;
}

/** "8 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function count(items: number): string {
  return items < 10 && !Number.isInteger(items) ? items.toFixed(1) : String(Math.round(items));
}
