/**
 * Builds dist/: the command line as one file with koffi's .node beside it, and with `--library` also the library
 * (JavaScript and declarations) by tsc.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { build } from 'esbuild';

const require = createRequire(import.meta.url);
process.chdir(new URL('..', import.meta.url).pathname);
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };

mkdirSync('dist', { recursive: true });
await build({
  entryPoints: ['src/cli/main.ts'],
  outfile: 'dist/tideover.mjs',
  bundle: true,
  platform: 'node',
  format: 'esm',
  // Syntax that an old Node can parse, so that it gets as far as saying that it is too old.
  target: 'node18',
  minify: true,
  keepNames: true,
  define: { TIDEOVER_VERSION: JSON.stringify(version) },
  external: ['koffi'],
  banner: { js: "import { createRequire as __cr } from 'node:module'; const require = __cr(import.meta.url);" },
  logLevel: 'warning',
});
copyFileSync(require.resolve('@koromix/koffi-linux-x64/linux_x64/koffi.node'), 'dist/koffi.node');

if (process.argv.includes('--library')) {
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
}
