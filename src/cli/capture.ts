/** Where the program of a capture kernel starts: one file with what is done there and no more, for it is in memory as a whole. */
import './node-version.ts';

const { isMainThread } = process.getBuiltinModule('node:worker_threads');
if (isMainThread) {
  const { main, program } = await import('./programs/capture.ts');
  const { sink } = await import('./sink.ts');
  const stdout = sink(1, () => process.stdout);
  const stderr = sink(2, () => process.stderr);
  process.exitCode = await main(process.argv.slice(2), { stdout, stderr, env: process.env }, program);
} else {
  await import('../crash/filter/threads.ts');
}
