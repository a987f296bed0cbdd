/** Where the program starts. What it needs is loaded once the Node is known to be one that can. */
import './node-version.ts';
import type { Sink } from './io.ts';

const argv = process.argv.slice(2);
const { isMainThread } = process.getBuiltinModule('node:worker_threads');
const stdout = sink(() => process.stdout);
const stderr = sink(() => process.stderr);
if (!isMainThread) {
  // Where the program is one file, its threads begin here too.
  await import('../crash/filter/threads.ts');
  await import('../hibernate/threads.ts');
  await import('./shell/worker.ts');
} else if (argv.length === 1 && argv[0] === '--version') {
  // Asked by scripts, and most often of all: answered without loading the rest.
  const { version } = await import('../version.ts');
  stdout.write(`${version()}\n`);
} else {
  const { main } = await import('./app.ts');
  process.exitCode = await main(argv, { stdout, stderr, env: process.env });
}

/** A stream of the process, made at its first use: each costs a millisecond or two. */
function sink(open: () => NodeJS.WriteStream): Sink {
  let opened: NodeJS.WriteStream | undefined;
  const stream = () => {
    // Whoever read may have had enough (`tideover ... | head -1`): the work goes on, its words are dropped.
    opened ??= open().on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
    return opened;
  };
  return {
    get isTTY() {
      return stream().isTTY;
    },
    get columns() {
      return stream().columns;
    },
    write: (text) => stream().write(text),
  };
}
