/** System calls of tideover in this process, looked at before they are made: each is a moment at which it can be killed. */
import { createRequire } from 'node:module';

type Call = (nr: number, ...args: (number | bigint)[]) => number;
interface Koffi {
  decode(at: bigint, type: unknown): Call & { async: unknown };
}

/** What koffi.node of src/sys/syscall.ts may be called, as seen from a file that is one bundle with it, or from test/. */
const PLACES = ['./koffi.node', '@koromix/koffi-linux-x64/linux_x64/koffi.node'];

/**
 * To be called before tideover makes its first one.
 *
 * @param look is given the number of the call; the call is made where it returns undefined, and else that is the kernel's result
 */
export function beforeEachCall(look: (nr: number) => number | undefined): void {
  const koffi = loadKoffi();
  const { decode } = koffi;
  koffi.decode = (at, type) => {
    const call = decode(at, type);
    const looked: Call = (nr, ...args) => look(nr) ?? call(nr, ...args);
    return Object.assign(looked, { async: call.async });
  };
}

function loadKoffi(): Koffi {
  const require = createRequire(import.meta.url);
  for (const place of PLACES) {
    try {
      return require(place) as Koffi;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new Error(`there is no ${PLACES.join(', no ')}`);
}

/** Kills this process before its call of that number, as kill -9 does; never where it is 0. */
export class Countdown {
  #left: number;
  #count = 0;

  constructor(moment: number) {
    this.#left = moment;
  }

  /** Calls so far. */
  get count(): number {
    return this.#count;
  }

  tick(): void {
    this.#count++;
    if (this.#left > 0 && --this.#left === 0) process.kill(process.pid, 'SIGKILL');
  }
}
