/** Where the program starts that is one file: its threads begin here too. */
import './node-version.ts';

const { isMainThread } = process.getBuiltinModule('node:worker_threads');
if (isMainThread) {
  await import('./main.ts');
} else {
  await import('../crash/filter/threads.ts');
  await import('../hibernate/threads.ts');
  await import('./shell/worker.ts');
}
