/**
 * Builds dist/: the command line with koffi's .node beside it, and with `--library` also the library (JavaScript and
 * declarations) by tsc. The command line is one small file that starts and others in chunks/ that it loads when they are
 * needed: 100 KB of code take 7 ms to parse, and an old Node must get as far as saying that it is too old.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { build } from 'esbuild';

const require = createRequire(import.meta.url);
process.chdir(new URL('..', import.meta.url).pathname);
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };

mkdirSync('dist', { recursive: true });
const { metafile } = await build({
  entryPoints: [{ in: 'src/cli/main.ts', out: 'tideover' }],
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  chunkNames: 'chunks/[name]-[hash]',
  splitting: true,
  metafile: true,
  bundle: true,
  platform: 'node',
  format: 'esm',
  // Syntax that an old Node can parse, so that it gets as far as saying that it is too old.
  target: 'node18',
  minify: true,
  keepNames: true,
  define: { TIDEOVER_VERSION: JSON.stringify(version) },
  external: ['koffi'],
  logLevel: 'warning',
});
for (const name of readdirSync('dist/chunks')) {
  if (!(`dist/chunks/${name}` in metafile.outputs)) rmSync(`dist/chunks/${name}`, { force: true });
}
copyFileSync(require.resolve('@koromix/koffi-linux-x64/linux_x64/koffi.node'), 'dist/koffi.node');

if (process.argv.includes('--library')) {
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
}
