/** Where the program starts. What it needs is loaded once the Node is known to be one that can. */
import './node-version.ts';
import { sink } from './sink.ts';

const argv = process.argv.slice(2);
const stdout = sink(1, () => process.stdout);
const stderr = sink(2, () => process.stderr);
if (argv.length === 1 && argv[0] === '--version') {
  // Asked by scripts, and most often of all: answered without loading the rest.
  const { version } = await import('../version.ts');
  stdout.write(`${version()}\n`);
} else {
  const { main, program } = await load(argv);
  process.exitCode = await main(argv, { stdout, stderr, env: process.env }, program);
}

/** The commands that are waited for most are programs of their own: one file each once built. */
function load([first, second]: readonly string[]) {
  if (first === 'crash' && second === 'dmesg') return import('./programs/dmesg.ts');
  if (first === 'checkpoint') return import('./programs/checkpoint.ts');
  if (first === 'lazy-pages') return import('./programs/lazypages.ts');
  if (first === 'restore') return import('./programs/restore.ts');
  if (first === 'run') return import('./programs/run.ts');
  if (first === 'update' && (second === 'resume' || second === 'bring')) return import('./programs/resume.ts');
  return import('./programs/all.ts');
}
