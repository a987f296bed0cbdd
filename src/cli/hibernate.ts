/** Where the program of the kernels that save and restore a machine starts: one file with what they do, which each of its threads loads. */
import './node-version.ts';

const { isMainThread } = process.getBuiltinModule('node:worker_threads');
if (isMainThread) {
  const { main, program } = await import('./programs/hibernate.ts');
  const { sink } = await import('./sink.ts');
  const stdout = sink(1, () => process.stdout);
  const stderr = sink(2, () => process.stderr);
  process.exitCode = await main(process.argv.slice(2), { stdout, stderr, env: process.env }, program);
} else {
  await import('../hibernate/threads.ts');
}
