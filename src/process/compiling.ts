/**
 * V8's optimizing compilers, which have a thread of their own: while programs stand still it works beside us on the same core, or on the
 * processor that they need.
 */
import { setFlagsFromString } from 'node:v8';
import { sleep } from '../sys/process.ts';

/** In ns. What rounds of practice had left to it took 0.5 to 5 ms. */
const COMPILING = 5_000_000;

/** Gives that thread time to end what it has. */
export function letCompile(): void {
  sleep(COMPILING);
}

/** From so many threads on functions run so often that they are better optimized meanwhile. */
export const WORTH_COMPILING = 20;

/** Nothing more is optimized until this is disposed of. */
export class CompilerPause implements Disposable {
  constructor() {
    optimizeOnly('-*');
    letCompile();
  }

  [Symbol.dispose](): void {
    optimizeOnly('*');
  }
}

/**
 * By filters of functions, which nobody has but V8's own tests: --no-opt and --no-maglev might be put back to what they were not, and
 * --max-optimized-bytecode-size is not heard by Maglev. The flags are of the whole process, and read by whoever runs JavaScript: it has
 * one such thread.
 */
function optimizeOnly(functions: '*' | '-*'): void {
  setFlagsFromString(`--maglev-filter=${functions} --turbo-filter=${functions}`);
}
